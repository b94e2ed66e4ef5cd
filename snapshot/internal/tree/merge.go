package tree

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

// merging lays a layer over a tree, of which it copies the directories that it
// changes.
type merging struct {
	root *Node
	own  map[*Node]bool // what is of the new tree alone
	// moves are directories of the layer where the tree has a link; their entries go
	// where it leads.
	moves []moved
}

type moved struct {
	path string
	dir  *Node
}

// Merge returns the tree of the layer over below, which stays as it is.
func Merge(below *Node, layer *Layer) (*Node, error) {
	m := &merging{own: map[*Node]bool{}}
	m.root = m.copy(below)
	m.directory("", layer.root)
	for len(m.moves) > 0 {
		next := m.moves[0]
		m.moves = m.moves[1:]
		if err := m.move(next); err != nil {
			return nil, fmt.Errorf("%q: %w", next.path, err)
		}
	}
	for _, l := range layer.links {
		if err := m.hardLink(l, layer.root); err != nil {
			return nil, fmt.Errorf("link %q to %q: %w", l.Path, l.Target, err)
		}
	}
	return m.root, nil
}

// copy returns d as a directory of the new tree alone.
func (m *merging) copy(d *Node) *Node {
	if m.own[d] {
		return d
	}
	c := *d
	c.Kids = maps.Clone(d.Kids)
	c.opaque, c.implicit = false, false
	m.own[&c] = true
	return &c
}

// owned returns the directory at path, which exists, to be changed.
func (m *merging) owned(path string) *Node {
	d := m.root
	if path == "" {
		return d
	}
	for element := range strings.SplitSeq(path, "/") {
		c := m.copy(d.Kids[element])
		d.Kids[element] = c
		d = c
	}
	return d
}

// directory lays the layer's directory src over the one at path.
func (m *merging) directory(path string, src *Node) {
	dst := m.owned(path)
	if src.opaque {
		dst.Attrs, dst.Kids = file.ImplicitAttrs, map[string]*Node{}
	}
	if !src.implicit {
		dst.Attrs = src.Attrs
	}
	for _, name := range slices.Sorted(maps.Keys(src.Kids)) {
		s, d := src.Kids[name], dst.Kids[name]
		switch {
		case s.gone:
			delete(dst.Kids, name)
			continue
		case !s.IsDir():
			dst.Kids[name], m.own[s] = s, true
			continue
		case d == nil && s.implicit && s.onlyRemoves():
			continue
		case d != nil && d.Kind == unix.S_IFLNK && s.implicit:
			m.moves = append(m.moves, moved{relpath.Join(path, name), s})
			continue
		case d == nil || !d.IsDir():
			fresh := NewDirectory()
			m.own[fresh] = true
			dst.Kids[name] = fresh
		}
		m.directory(relpath.Join(path, name), s)
	}
}

// onlyRemoves reports whether whiteouts are all that d holds.
func (n *Node) onlyRemoves() bool {
	for _, kid := range n.Kids {
		if !kid.gone && (!kid.implicit || !kid.onlyRemoves()) {
			return false
		}
	}
	return true
}

// move lays a directory of the layer over what the link in its place leads to.
func (m *merging) move(w moved) error {
	target, err := m.mkdirs(w.path)
	if err != nil {
		return err
	}
	m.directory(target, w.dir)
	return nil
}

// mkdirs makes the directory that name leads to, and those on the way.
func (m *merging) mkdirs(name string) (string, error) {
	// The way may end in nothing more than once: behind each link.
	for {
		at, _, err := m.root.Resolve(name, false)
		if !errors.Is(err, unix.ENOENT) {
			return at, err
		}
		parent, base := relpath.Split(at)
		fresh := NewDirectory()
		m.own[fresh] = true
		m.owned(parent).Kids[base] = fresh
	}
}

// hardLink makes the link l, whose target wasn't in the layer when its entry was read.
// A target that came later keeps the attributes of its own entry, as in the extractor.
func (m *merging) hardLink(l layertar.Link, layer *Node) error {
	parent, last := relpath.Split(l.Target)
	_, own, err := layer.Resolve(parent, false)
	later := err == nil && own.Kids[last] != nil
	dirName, d, err := m.root.Resolve(parent, false)
	if err != nil {
		return err
	}
	target := d.Kids[last]
	if target == nil {
		return unix.ENOENT
	}
	if target.IsDir() {
		return unix.EISDIR
	}
	parent, base := relpath.Split(l.Path)
	at, err := m.mkdirs(parent)
	if err != nil {
		return err
	}
	if !m.own[target] {
		c := *target
		target = &c
		m.own[target] = true
		m.owned(dirName).Kids[last] = target
	}
	if !later {
		target.setLinked(l.Attrs)
	}
	m.owned(at).Kids[base] = target
	return nil
}
