// Package layers reads image layers that lie on the disk in overlay format: the marks of
// removed names, and what an overlay of several layers would show, without mounting one.
package layers

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"golang.org/x/sys/unix"
)

// A Stack looks things up in the overlay of layers without mounting it.
type Stack struct {
	layers []string // top first
	Owners owners.Keeper
	Marks  Marks
	fds    []int // of their roots; 0 is not open
	opened []int // which are open, the first opened first
	// deep are directories far below a root that were opened last: the way to what is in
	// them needn't be gone from the root.
	deep []deepDir

	// known holds what at has found, if that can't change; else it is nil.
	known map[string]Dir
	// tree is what the layers come to, if they are only indexed; then layers is empty.
	tree Node
}

// A Node is a file of a tree in memory.
type Node interface {
	// Child returns the entry base of a directory; ok says whether there is one.
	Child(base string) (n Node, isDir, ok bool)
	// Attributes returns what the file has.
	Attributes() file.Attrs
}

// deepDir is an open directory of a layer.
type deepDir struct {
	layer int
	path  string
	fd    int
}

// Dir is a directory of a stack: the layers that have a part in it, top
// first, and its path in each. The zero value is no directory.
type Dir struct {
	Layers []int
	Path   string
	node   Node // of a stack that is a tree in memory
}

// Exists reports whether d is a directory.
func (d Dir) Exists() bool { return len(d.Layers) > 0 || d.node != nil }

// Entry is an entry of a directory of a stack, as an overlay shows it.
type Entry struct {
	Layer int // which has it
	Stat  unix.Stat_t
	Dir   Dir // if it is a directory
}

// New returns the stack of the layers at the paths, the top one first. The caller closes
// it.
func New(layers []string, keeper owners.Keeper, m Marks) *Stack {
	return &Stack{layers: layers, Owners: keeper, Marks: m, fds: make([]int, len(layers))}
}

// OfTree is the stack of a tree in memory.
func OfTree(root Node, keeper owners.Keeper, m Marks) *Stack {
	return &Stack{tree: root, Owners: keeper, Marks: m}
}

// Remember has At look nowhere twice: nobody changes the layers meanwhile.
func (s *Stack) Remember() { s.known = map[string]Dir{} }

// FD returns the root of a layer, which it opens if it isn't open. It is good until the
// next call.
func (s *Stack) FD(layer int) (int, error) {
	if s.fds[layer] != 0 {
		return s.fds[layer], nil
	}
	if len(s.opened) >= file.OpenShare(8) {
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

// Close closes what the stack has opened.
func (s *Stack) Close() {
	for _, layer := range s.opened {
		unix.Close(s.fds[layer])
	}
	for _, d := range s.deep {
		unix.Close(d.fd)
	}
	clear(s.fds)
	s.opened, s.deep = nil, nil
}

// Root returns the root directory of the stack.
func (s *Stack) Root() Dir {
	d := Dir{node: s.tree}
	for i := range s.layers {
		d.Layers = append(d.Layers, i)
	}
	return d
}

// Lookup finds the entry base of d; ok says whether there is one. Elements of
// d.path are directories in each of d.layers, so that no link is followed.
func (s *Stack) Lookup(d Dir, base string) (e Entry, ok bool, err error) {
	path := relpath.Join(d.Path, base)
	if d.node != nil {
		n, isDir, ok := d.node.Child(base)
		if isDir {
			e.Dir = Dir{Path: path, node: n}
		}
		return e, ok, nil
	}
	for _, i := range d.Layers {
		fd, err := s.FD(i)
		if err != nil {
			return e, false, err
		}
		var st unix.Stat_t
		err = descent.Beneath(fd, path, func(dir int, rest string) error { return s.Owners.Fstatat(dir, rest, &st) })
		if errors.Is(err, unix.ENOENT) {
			removed, err := s.Marks.Hidden(fd, path)
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
		if IsWhiteout(fd, path, &st) || ok && !isDir {
			break
		}
		if !ok {
			e, ok = Entry{Layer: i, Stat: st}, true
			if !isDir {
				break
			}
			e.Dir.Path = path
		}
		e.Dir.Layers = append(e.Dir.Layers, i)
		opaque, err := s.Opaque(i, path)
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

// Open opens the directory path of a layer.
func (s *Stack) Open(layer int, path string) (int, error) {
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

// openFromRoot is Open by the whole path.
func (s *Stack) openFromRoot(layer int, path string) (int, error) {
	root, err := s.FD(layer)
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

// Opaque reports whether the directory path of a layer hides those below it.
func (s *Stack) Opaque(layer int, path string) (bool, error) {
	fd, err := s.Open(layer, path)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	return s.Marks.IsOpaque(fd)
}

// Attrs returns the attributes of the directory d.
func (s *Stack) Attrs(d Dir) (file.Attrs, error) {
	if d.node != nil {
		return d.node.Attributes(), nil
	}
	fd, err := s.Open(d.Layers[0], d.Path)
	if err != nil {
		return file.Attrs{}, err
	}
	defer unix.Close(fd)
	return file.ReadAttrs(fd, s.Owners)
}

// ReadLink returns what the symbolic link path of a layer contains.
func (s *Stack) ReadLink(layer int, path string) (string, error) {
	root, err := s.FD(layer)
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

// At returns the directory at the clean path, without following links: the zero
// Dir if there is none.
func (s *Stack) At(path string) (Dir, error) {
	if path == "" {
		return s.Root(), nil
	}
	if d, ok := s.known[path]; ok {
		return d, nil
	}
	parent, base := relpath.Split(path)
	d, err := s.At(parent)
	if err != nil {
		return Dir{}, err
	}
	e, _, err := s.Lookup(d, base)
	if err != nil {
		return Dir{}, err
	}
	if s.known != nil {
		s.known[path] = e.Dir
	}
	return e.Dir, nil
}

// Resolve returns the path, free of links, that the clean name leads to when the
// links in it are followed, the last element's included if last is set. What
// doesn't exist is taken literally.
func (s *Stack) Resolve(name string, last bool) (string, error) {
	at := &place{stack: s, last: last}
	if err := pathwalk.New(pathwalk.MaxLinks).Along(name, at); err != nil {
		return "", fmt.Errorf("follow %q: %w", name, err)
	}
	return at.Path, nil
}

// place is a directory of a stack that a walk is in, or where one would be.
type place struct {
	pathwalk.Position

	stack *Stack
	last  bool // a link at the end is followed, too
}

func (p *place) Down(name string, w *pathwalk.Walk) (target string, link bool, err error) {
	d, err := p.stack.At(p.Path)
	if err != nil {
		return "", false, err
	}
	e, ok, err := p.stack.Lookup(d, name)
	if err != nil {
		return "", false, err
	}
	if ok && e.Stat.Mode&unix.S_IFMT == unix.S_IFLNK && (p.last || !w.Last()) {
		target, err = p.stack.ReadLink(e.Layer, relpath.Join(d.Path, name))
		return target, true, err
	}
	p.Path = p.Join(name)
	return "", false, relpath.CheckLength(p.Path)
}
