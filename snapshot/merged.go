package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

// nodes returns the tree of all files of the snapshot id, "" for the empty one, which
// nobody may change.
func (s *Store) nodes(id string) (*node, error) {
	if id == "" {
		return newDirectory(), nil
	}
	s.trees.Lock()
	defer s.trees.Unlock()
	return s.readNodes(id)
}

// readNodes is nodes under the lock of s.trees.
func (s *Store) readNodes(id string) (*node, error) {
	if id == "" {
		return newDirectory(), nil
	}
	if n := s.trees.byID[id]; n != nil {
		return n, nil
	}
	var layer *layerNodes
	m, err := s.readMeta(id)
	parent := m.Parent
	switch {
	case errors.Is(err, fs.ErrNotExist):
		var rec stackRecord
		if rec, err = s.stackOf(id); err == nil {
			parent = rec.Parent
			layer, err = s.readIndex(rec.DiffID)
		}
	case err == nil:
		layer = &layerNodes{}
		layer.root, err = s.readDirNodes(filepath.Join(s.snapshotDir(id), "fs"))
		if err == nil {
			layer.root.opaque = layer.root.opaque || m.Opaque
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read tree of snapshot %s: %w", id, err)
	}
	below, err := s.readNodes(parent)
	if err != nil {
		return nil, err
	}
	merged, err := merge(below, layer)
	if err != nil {
		return nil, fmt.Errorf("lay snapshot %s over %s: %w", id, parent, err)
	}
	if s.trees.byID == nil {
		s.trees.byID = make(map[string]*node)
	}
	s.trees.byID[id] = merged
	return merged, nil
}

// readDirNodes returns the tree of a directory in overlay format.
func (s *Store) readDirNodes(dir string) (*node, error) {
	root, err := unix.Open(dir, file.Directory, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	at := descent.From(root)
	defer at.Close()
	return s.dirNodes(at, dir)
}

// dirNodes is readDirNodes of the directory dir, where at is.
func (s *Store) dirNodes(at *descent.Path, dir string) (*node, error) {
	n := newDirectory()
	var err error
	if n.Attrs, err = file.ReadAttrs(at.FD(), s.Owners()); err != nil {
		return nil, err
	}
	if n.opaque, err = s.marks.IsOpaque(at.FD()); err != nil {
		return nil, err
	}
	names, err := descent.Names(at.FD())
	if err != nil {
		return nil, err
	}
	names, removed := s.marks.Split(names)
	for _, name := range names {
		if removed[name] {
			n.kids[name] = &node{kind: unix.S_IFCHR, gone: true}
			continue
		}
		if n.kids[name], err = s.entryNode(at, filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// entryNode returns what is at path, in the directory where at is.
func (s *Store) entryNode(at *descent.Path, path string) (*node, error) {
	name := filepath.Base(path)
	var st unix.Stat_t
	if err := s.Owners().Fstatat(at.FD(), name, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: relpath.Brief(path), Err: err}
	}
	n := &node{Attrs: file.AttrsOf(&st), kind: st.Mode & unix.S_IFMT, gone: layers.IsWhiteout(at.FD(), name, &st), disk: path}
	switch n.kind {
	case unix.S_IFDIR:
		if err := at.Down(name); err != nil {
			return nil, err
		}
		n, err := s.dirNodes(at, path)
		if err != nil {
			return nil, err
		}
		return n, at.Up()
	case unix.S_IFLNK:
		var err error
		n.link, err = file.ReadLink(at.FD(), name)
		return n, err
	}
	return n, nil
}

// merging lays a layer over a tree, of which it copies the directories that it
// changes.
type merging struct {
	root *node
	own  map[*node]bool // what is of the new tree alone
	// moves are directories of the layer where the tree has a link; their entries go
	// where it leads.
	moves []moved
}

type moved struct {
	path string
	dir  *node
}

// merge returns the tree of the layer over below, which stays as it is.
func merge(below *node, layer *layerNodes) (*node, error) {
	m := &merging{own: map[*node]bool{}}
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
func (m *merging) copy(d *node) *node {
	if m.own[d] {
		return d
	}
	c := *d
	c.kids = maps.Clone(d.kids)
	c.opaque, c.implicit = false, false
	m.own[&c] = true
	return &c
}

// owned returns the directory at path, which exists, to be changed.
func (m *merging) owned(path string) *node {
	d := m.root
	if path == "" {
		return d
	}
	for element := range strings.SplitSeq(path, "/") {
		c := m.copy(d.kids[element])
		d.kids[element] = c
		d = c
	}
	return d
}

// directory lays the layer's directory src over the one at path.
func (m *merging) directory(path string, src *node) {
	dst := m.owned(path)
	if src.opaque {
		dst.Attrs, dst.kids = file.ImplicitAttrs, map[string]*node{}
	}
	if !src.implicit {
		dst.Attrs = src.Attrs
	}
	for _, name := range slices.Sorted(maps.Keys(src.kids)) {
		s, d := src.kids[name], dst.kids[name]
		switch {
		case s.gone:
			delete(dst.kids, name)
			continue
		case !s.isDir():
			dst.kids[name], m.own[s] = s, true
			continue
		case d == nil && s.implicit && s.onlyRemoves():
			continue
		case d != nil && d.kind == unix.S_IFLNK && s.implicit:
			m.moves = append(m.moves, moved{relpath.Join(path, name), s})
			continue
		case d == nil || !d.isDir():
			fresh := newDirectory()
			m.own[fresh] = true
			dst.kids[name] = fresh
		}
		m.directory(relpath.Join(path, name), s)
	}
}

// onlyRemoves reports whether whiteouts are all that d holds.
func (n *node) onlyRemoves() bool {
	for _, kid := range n.kids {
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
		at, _, err := m.root.resolve(name, false)
		if !errors.Is(err, unix.ENOENT) {
			return at, err
		}
		parent, base := relpath.Split(at)
		fresh := newDirectory()
		m.own[fresh] = true
		m.owned(parent).kids[base] = fresh
	}
}

// hardLink makes the link l, whose target wasn't in the layer when its entry was read.
// A target that came later keeps the attributes of its own entry, as in the extractor.
func (m *merging) hardLink(l layertar.Link, layer *node) error {
	parent, last := relpath.Split(l.Target)
	_, own, err := layer.resolve(parent, false)
	later := err == nil && own.kids[last] != nil
	dirName, d, err := m.root.resolve(parent, false)
	if err != nil {
		return err
	}
	target := d.kids[last]
	if target == nil {
		return unix.ENOENT
	}
	if target.isDir() {
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
		m.owned(dirName).kids[last] = target
	}
	if !later {
		target.setLinked(l.Attrs)
	}
	m.owned(at).kids[base] = target
	return nil
}
