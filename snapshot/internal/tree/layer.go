package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"slices"

	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

// A Layer is what one layer holds.
type Layer struct {
	root      *Node
	whiteouts layertar.Whiteouts
	links     []layertar.Link // hard links to what isn't in the layer, or comes later
}

// FromEntries builds the tree of a layer from the entries of its tar, by the rules of the
// extractor.
func FromEntries(entries []Entry) (*Layer, error) {
	t := &Layer{root: NewDirectory()}
	t.root.implicit = true
	for _, e := range entries {
		if err := t.add(&e); err != nil {
			return nil, fmt.Errorf("entry %q: %w", e.Name, err)
		}
	}
	for _, name := range t.whiteouts.Opaque {
		_, d, err := t.root.Resolve(name, true)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", relpath.Join(name, layers.OpaqueName), err)
		}
		d.opaque = true
	}
	// In this order a directory's whiteout comes before those in it.
	slices.Sort(t.whiteouts.Removed)
	for _, name := range slices.Compact(t.whiteouts.Removed) {
		if err := t.whiteout(name); err != nil && !errors.Is(err, layertar.ErrHidden) {
			return nil, fmt.Errorf("whiteout of %q: %w", name, err)
		}
	}
	return t, nil
}

func (t *Layer) add(e *Entry) error {
	name, err := relpath.Clean(e.Name)
	if err != nil {
		return err
	}
	if done, err := t.whiteouts.Take(name); done || err != nil {
		return err
	}
	a := file.Attrs{Mode: e.Mode, UID: e.UID, GID: e.GID, Mtime: e.Mtime, Xattrs: e.Xattrs}
	if name == "" {
		if e.Type != tar.TypeDir {
			return fmt.Errorf("the root is not a directory but of type %q", e.Type)
		}
		t.root.Attrs, t.root.implicit = a, false
		return nil
	}
	parent, base := relpath.Split(name)
	at, p, err := t.root.Resolve(parent, true)
	if err != nil {
		return err
	}
	n := &Node{Attrs: a}
	switch e.Type {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		n.Kind, n.Data = unix.S_IFREG, e.Data
	case tar.TypeDir:
		if d := p.Kids[base]; d != nil && d.IsDir() {
			d.Attrs, d.implicit = a, false
			return nil
		}
		n.Kind, n.Kids = unix.S_IFDIR, map[string]*Node{}
	case tar.TypeLink:
		return t.hardLink(layertar.Link{Path: relpath.Join(at, base), Target: e.Link, Attrs: a}, p)
	case tar.TypeSymlink:
		n.Kind, n.Link = unix.S_IFLNK, e.Link
	case tar.TypeFifo:
		n.Kind = unix.S_IFIFO
	case tar.TypeChar, tar.TypeBlock:
		n.Kind = unix.S_IFCHR
		if e.Type == tar.TypeBlock {
			n.Kind = unix.S_IFBLK
		}
	default:
		return fmt.Errorf("unsupported type of entry %q", e.Type)
	}
	p.Kids[base] = n
	return nil
}

// hardLink makes the link l in p. A target that isn't in the layer so far may be below
// it, or come later.
func (t *Layer) hardLink(l layertar.Link, p *Node) error {
	name, err := relpath.Clean(l.Target)
	if err != nil {
		return fmt.Errorf("target %q: %w", l.Target, err)
	}
	if err := layertar.CheckNoWhiteout(name); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	parent, last := relpath.Split(name)
	_, base := relpath.Split(l.Path)
	_, d, err := t.root.Resolve(parent, false)
	if err == nil && d.Kids[last] != nil {
		if d.Kids[last].IsDir() {
			return fmt.Errorf("target %q is a directory", l.Target)
		}
		p.Kids[base] = d.Kids[last]
		p.Kids[base].setLinked(l.Attrs)
		return nil
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("target %q: %w", l.Target, err)
	}
	l.Target = name
	t.links = append(t.links, l)
	return nil
}

func (t *Layer) whiteout(name string) error {
	parent, base := relpath.Split(name)
	_, p, err := t.root.Resolve(parent, true)
	if err != nil {
		return err
	}
	switch n := p.Kids[base]; {
	case n == nil:
		p.Kids[base] = &Node{Kind: unix.S_IFCHR, gone: true}
	case n.IsDir():
		n.opaque = true
	}
	return nil
}
