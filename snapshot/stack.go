package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A stack looks things up in the overlay of layers without mounting it.
type stack struct {
	layers []string // top first
	fds    []int    // of their roots
}

// lowerDir is a directory of a stack: the layers that have a part in it, top
// first, and its path in each. The zero value is no directory.
type lowerDir struct {
	layers []int
	path   string
}

func (d lowerDir) exists() bool { return len(d.layers) > 0 }

// lowerEntry is an entry of a directory of a stack, as an overlay shows it.
type lowerEntry struct {
	layer int // which has it
	stat  unix.Stat_t
	dir   lowerDir // if it is a directory
}

func newStack(layers []string) (*stack, error) {
	s := &stack{layers: layers}
	for _, l := range layers {
		fd, err := unix.Open(l, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("open layer %s: %w", l, err)
		}
		s.fds = append(s.fds, fd)
	}
	return s, nil
}

func (s *stack) close() {
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	s.fds = nil
}

func (s *stack) root() lowerDir {
	d := lowerDir{}
	for i := range s.fds {
		d.layers = append(d.layers, i)
	}
	return d
}

// lookup finds the entry base of d; ok says whether there is one. Elements of
// d.path are directories in each of d.layers, so that no link is followed.
func (s *stack) lookup(d lowerDir, base string) (e lowerEntry, ok bool, err error) {
	path := join(d.path, base)
	for _, i := range d.layers {
		var st unix.Stat_t
		err := unix.Fstatat(s.fds[i], path, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return e, false, fmt.Errorf("stat %q in %s: %w", path, s.layers[i], err)
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if isWhiteout(&st) || ok && !isDir {
			break
		}
		if !ok {
			e, ok = lowerEntry{layer: i, stat: st}, true
			if !isDir {
				break
			}
			e.dir.path = path
		}
		e.dir.layers = append(e.dir.layers, i)
		opaque, err := s.opaque(i, path)
		if err != nil {
			return e, false, err
		}
		if opaque {
			break
		}
	}
	return e, ok, nil
}

func (s *stack) opaque(layer int, path string) (bool, error) {
	fd, err := unix.Openat(s.fds[layer], path, dirFlags, 0)
	if err != nil {
		return false, fmt.Errorf("open %q in %s: %w", path, s.layers[layer], err)
	}
	defer unix.Close(fd)
	return isOpaque(fd)
}

// attrs returns the attributes of the directory d.
func (s *stack) attrs(d lowerDir) (attrs, error) {
	path := d.path
	if path == "" {
		path = "."
	}
	fd, err := unix.Openat(s.fds[d.layers[0]], path, dirFlags, 0)
	if err != nil {
		return attrs{}, fmt.Errorf("open %q in %s: %w", path, s.layers[d.layers[0]], err)
	}
	defer unix.Close(fd)
	return readAttrs(fd)
}

// at returns the directory at the clean path, without following links: the zero
// lowerDir if there is none.
func (s *stack) at(path string) (lowerDir, error) {
	d := s.root()
	if path == "" {
		return d, nil
	}
	for element := range strings.SplitSeq(path, "/") {
		e, ok, err := s.lookup(d, element)
		if err != nil {
			return lowerDir{}, err
		}
		if !ok || !e.dir.exists() {
			return lowerDir{}, nil
		}
		d = e.dir
	}
	return d, nil
}

// resolve returns the path, free of links, that the clean name leads to when the
// links in it are followed, the last element's included if last is set. What
// doesn't exist is taken literally.
func (s *stack) resolve(name string, last bool) (string, error) {
	todo := strings.Split(name, "/")
	path := ""
	for links := 0; len(todo) > 0; {
		element := todo[0]
		todo = todo[1:]
		switch element {
		case "", ".":
			continue
		case "..":
			path, _ = split(path)
			continue
		}
		d, err := s.at(path)
		if err != nil {
			return "", err
		}
		e, ok, err := s.lookup(d, element)
		if err != nil {
			return "", err
		}
		if !ok || e.stat.Mode&unix.S_IFMT != unix.S_IFLNK || len(todo) == 0 && !last {
			if path = join(path, element); len(path) > maxName {
				return "", errTooLong
			}
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("follow %q: %w", name, unix.ELOOP)
		}
		target, err := readlinkat(s.fds[e.layer], join(d.path, element))
		if err != nil {
			return "", fmt.Errorf("read link %q in %s: %w", join(d.path, element), s.layers[e.layer], err)
		}
		if strings.HasPrefix(target, "/") {
			path = ""
		}
		todo = slices.Concat(strings.Split(target, "/"), todo)
	}
	return path, nil
}
