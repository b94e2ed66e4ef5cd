package snapshot

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// A stack looks things up in the overlay of layers without mounting it.
type stack struct {
	layers []string // top first
	owners owners.Keeper
	marks  marks
	fds    []int // of their roots; 0 is not open
	opened []int // which are open, the first opened first
	// deep are directories far below a root that were opened last: the way to what is in
	// them needn't be gone from the root.
	deep []deepDir

	// known holds what at has found, if that can't change; else it is nil.
	known map[string]lowerDir
	// tree is what the layers come to, if they are only indexed; then there are none.
	tree *node
}

// deepDir is an open directory of a layer.
type deepDir struct {
	layer int
	path  string
	fd    int
}

// lowerDir is a directory of a stack: the layers that have a part in it, top
// first, and its path in each. The zero value is no directory.
type lowerDir struct {
	layers []int
	path   string
	node   *node // of a stack that is a tree in memory
}

func (d lowerDir) exists() bool { return len(d.layers) > 0 || d.node != nil }

// lowerEntry is an entry of a directory of a stack, as an overlay shows it.
type lowerEntry struct {
	layer int // which has it
	stat  unix.Stat_t
	dir   lowerDir // if it is a directory
}

func newStack(layers []string, keeper owners.Keeper, m marks) *stack {
	return &stack{layers: layers, owners: keeper, marks: m, fds: make([]int, len(layers))}
}

// fd returns the root of a layer, which it opens if it isn't open. It is good until the
// next call.
func (s *stack) fd(layer int) (int, error) {
	if s.fds[layer] != 0 {
		return s.fds[layer], nil
	}
	if len(s.opened) >= openShare(8) {
		unix.Close(s.fds[s.opened[0]])
		s.fds[s.opened[0]] = 0
		s.opened = s.opened[1:]
	}
	fd, err := unix.Open(s.layers[layer], unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open layer %s: %w", s.layers[layer], err)
	}
	s.fds[layer] = fd
	s.opened = append(s.opened, layer)
	return fd, nil
}

func (s *stack) close() {
	for _, layer := range s.opened {
		unix.Close(s.fds[layer])
	}
	for _, d := range s.deep {
		unix.Close(d.fd)
	}
	clear(s.fds)
	s.opened, s.deep = nil, nil
}

func (s *stack) root() lowerDir {
	d := lowerDir{node: s.tree}
	for i := range s.layers {
		d.layers = append(d.layers, i)
	}
	return d
}

// lookup finds the entry base of d; ok says whether there is one. Elements of
// d.path are directories in each of d.layers, so that no link is followed.
func (s *stack) lookup(d lowerDir, base string) (e lowerEntry, ok bool, err error) {
	path := relpath.Join(d.path, base)
	if d.node != nil {
		n := d.node.kids[base]
		if n != nil && n.isDir() {
			e.dir = lowerDir{path: path, node: n}
		}
		return e, n != nil, nil
	}
	for _, i := range d.layers {
		fd, err := s.fd(i)
		if err != nil {
			return e, false, err
		}
		var st unix.Stat_t
		err = descent.Beneath(fd, path, func(dir int, rest string) error { return s.owners.Fstatat(dir, rest, &st) })
		if errors.Is(err, unix.ENOENT) {
			removed, err := s.marks.fileRemoves(fd, path)
			if err != nil {
				return e, false, fmt.Errorf("look into %s: %w", s.layers[i], err)
			}
			if removed {
				break
			}
			continue
		}
		if err != nil {
			return e, false, fmt.Errorf("stat %q in %s: %w", relpath.Brief(path), s.layers[i], err)
		}
		isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if isWhiteout(fd, path, &st) || ok && !isDir {
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

// deepPath is from how many bytes on a path counts as one to a deep directory, and
// deepDirs how many of those stay open.
const (
	deepPath = 1024
	deepDirs = 8
)

// open opens the directory path of a layer.
func (s *stack) open(layer int, path string) (int, error) {
	if len(path) < deepPath {
		return s.openFromRoot(layer, path)
	}
	parent, base := relpath.Split(path)
	var fd int
	var err error
	i := slices.IndexFunc(s.deep, func(d deepDir) bool { return d.layer == layer && d.path == parent })
	if i >= 0 {
		fd, err = unix.Openat(s.deep[i].fd, base, file.Directory, 0)
	} else {
		fd, err = s.openFromRoot(layer, path)
	}
	if err != nil || slices.ContainsFunc(s.deep, func(d deepDir) bool { return d.layer == layer && d.path == path }) {
		return fd, err
	}
	kept, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	if len(s.deep) == deepDirs {
		unix.Close(s.deep[0].fd)
		s.deep = slices.Delete(s.deep, 0, 1)
	}
	s.deep = append(s.deep, deepDir{layer, path, kept})
	return fd, nil
}

// openFromRoot is open by the whole path.
func (s *stack) openFromRoot(layer int, path string) (int, error) {
	root, err := s.fd(layer)
	if err != nil {
		return -1, err
	}
	if path == "" {
		path = "."
	}
	fd := -1
	err = descent.Beneath(root, path, func(dir int, rest string) (err error) {
		fd, err = unix.Openat(dir, rest, file.Directory, 0)
		return err
	})
	if err != nil {
		return -1, fmt.Errorf("open %q in %s: %w", relpath.Brief(path), s.layers[layer], err)
	}
	return fd, nil
}

func (s *stack) opaque(layer int, path string) (bool, error) {
	fd, err := s.open(layer, path)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return s.marks.hides(fd)
}

// attrs returns the attributes of the directory d.
func (s *stack) attrs(d lowerDir) (file.Attrs, error) {
	if d.node != nil {
		return d.node.Attrs, nil
	}
	fd, err := s.open(d.layers[0], d.path)
	if err != nil {
		return file.Attrs{}, err
	}
	defer unix.Close(fd)
	return file.ReadAttrs(fd, s.owners)
}

// readlink returns what the symbolic link path of a layer contains.
func (s *stack) readlink(layer int, path string) (string, error) {
	root, err := s.fd(layer)
	if err != nil {
		return "", err
	}
	var target string
	err = descent.Beneath(root, path, func(dir int, rest string) (err error) {
		target, err = file.ReadLink(dir, rest)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read link %q in %s: %w", relpath.Brief(path), s.layers[layer], err)
	}
	return target, nil
}

// at returns the directory at the clean path, without following links: the zero
// lowerDir if there is none.
func (s *stack) at(path string) (lowerDir, error) {
	if path == "" {
		return s.root(), nil
	}
	if d, ok := s.known[path]; ok {
		return d, nil
	}
	parent, base := relpath.Split(path)
	d, err := s.at(parent)
	if err != nil {
		return lowerDir{}, err
	}
	e, _, err := s.lookup(d, base)
	if err != nil {
		return lowerDir{}, err
	}
	if s.known != nil {
		s.known[path] = e.dir
	}
	return e.dir, nil
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
			path, _ = relpath.Split(path)
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
			if path = relpath.Join(path, element); len(path) > relpath.MaxLength {
				return "", relpath.ErrTooLong
			}
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("follow %q: %w", name, unix.ELOOP)
		}
		target, err := s.readlink(e.layer, relpath.Join(d.path, element))
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(target, "/") {
			path = ""
		}
		todo = slices.Concat(strings.Split(target, "/"), todo)
	}
	return path, nil
}
