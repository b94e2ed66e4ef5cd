package checkout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

// changes finds what a step has changed in a checkout, and makes a layer of it as
// overlay format has it. Files are compared by what the kernel says of them, see
// state, and not by what they hold.
//
// There is one difference to what an overlay makes of the same step: that breaks
// the tie between the names of one file below when the file is changed under one
// of them. Here they stay one file, and all are in the layer.
type changes struct {
	*file.Copier

	original *layers.Stack // what the checkout was made of
	root     int           // of the checkout
	from     *descent.Path // where in the checkout the copying is
	marks    layers.Marks
}

// write makes the layer of what has changed from old to now.
func (c *changes) write(ctx context.Context, old, now *listed) error {
	names := map[uint64][]named{}
	pair(old, now, "", names)
	for _, group := range names {
		if err := c.compare(group); err != nil {
			return err
		}
	}
	now.spread()
	c.from = descent.From(c.root)
	defer c.from.Close()
	return c.directory(ctx, old, now, c.Top())
}

// named is a file under one of its names.
type named struct {
	*listed

	path string
}

// pair finds for the entries of now, at path, what they were in old, and collects
// the names of files.
func pair(old, now *listed, path string, names map[uint64][]named) {
	for name, n := range now.entries {
		var o *listed
		if old != nil {
			o = old.entries[name]
		}
		if n.is(o) {
			n.before = o
			o.before = nil // or no inventory would ever be free
		}
		if n.isDir() {
			n.changed = n.before == nil || n.state != n.before.state
			pair(n.before, n, relpath.Join(path, name), names)
			continue
		}
		names[n.ino] = append(names[n.ino], named{n, relpath.Join(path, name)})
	}
}

// compare decides whether a file, of which these are all names, has changed.
func (c *changes) compare(group []named) error {
	changed, unlinked := false, false
	for _, n := range group {
		switch {
		case n.before == nil || n.nlink > n.before.nlink:
			changed = true
		case n.state == n.before.state:
		case n.lostName():
			unlinked = true
		default:
			changed = true
		}
	}
	if unlinked && !changed {
		same, err := c.isOriginal(group[0])
		if err != nil {
			return fmt.Errorf("compare %q: %w", relpath.Brief(group[0].path), err)
		}
		changed = !same
	}
	for _, n := range group {
		n.changed = changed
	}
	return nil
}

// lostName reports whether all that shows of a change is that a name has gone.
func (n *listed) lostName() bool {
	s := n.state
	s.ctime, s.nlink = n.before.ctime, n.before.nlink
	return n.nlink < n.before.nlink && s == n.before.state
}

// isOriginal reports whether the file n holds what it did in the layers below.
func (c *changes) isOriginal(n named) (bool, error) {
	parent, base := relpath.Split(n.path)
	d, err := c.original.At(parent)
	if err != nil {
		return false, err
	}
	e, ok, err := c.original.Lookup(d, base)
	if err != nil || !ok {
		return false, err
	}
	if n.mode&unix.S_IFMT != unix.S_IFREG {
		return true, nil // nothing of it can have changed
	}
	layer, err := c.original.FD(e.Layer)
	if err != nil {
		return false, err
	}
	below, err := file.OpenRegular(layer, n.path, c.Owners)
	if err != nil {
		return false, err
	}
	defer below.Close()
	here, err := file.OpenRegular(c.root, n.path, c.Owners)
	if err != nil {
		return false, err
	}
	defer here.Close()
	return file.Same(below, here, c.Buf)
}

// spread has every directory at and below n count as changed that something changed
// in.
func (n *listed) spread() {
	for _, e := range n.entries {
		if e.isDir() {
			e.spread()
		}
		n.changed = n.changed || e.changed
	}
}

// directory writes what has changed in the directory where c.from is, which was old, nil
// if it is new, and is now, to the directory to.
func (c *changes) directory(ctx context.Context, old, now *listed, to *file.Dir) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	names := slices.Collect(maps.Keys(now.entries))
	if old != nil {
		names = slices.AppendSeq(names, maps.Keys(old.entries))
	} else {
		old = &listed{}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		n, o := now.entries[name], old.entries[name]
		if n != nil && !n.changed {
			continue
		}
		if err := c.change(ctx, name, o, n, to); err != nil {
			return err
		}
	}
	a, err := file.ReadAttrs(c.from.FD(), c.Owners)
	if err != nil {
		return err
	}
	return a.Apply(to.FD, true, c.Owners)
}

// change writes the entry name of the directory where c.from is, which was o and is n;
// either is nil where there is none.
func (c *changes) change(ctx context.Context, name string, o, n *listed, to *file.Dir) error {
	var err error
	_, marked := c.marks.MarkOf(name)
	switch {
	case n == nil:
		err = c.marks.Whiteout(to.FD, name)
	case marked:
		err = layertar.ErrWhiteoutName
	case n.isDir():
		if err = c.from.Down(name); err == nil {
			return c.changed(ctx, name, o, n, to) // its error says where
		}
	default:
		err = c.file(ctx, name, to)
	}
	if err != nil {
		return fmt.Errorf("copy change of %q: %w", relpath.Brief(relpath.Join(to.Path, name)), err)
	}
	return nil
}

// changed is change for a directory, where c.from is already.
func (c *changes) changed(ctx context.Context, name string, o, n *listed, to *file.Dir) error {
	err := c.InNewDirectory(to, name, func(made *file.Dir) error {
		if o != nil && n.before == nil {
			if err := c.marks.MakeOpaque(made.FD); err != nil {
				return err
			}
		}
		return c.directory(ctx, n.before, n, made)
	})
	if err != nil {
		return err
	}
	return c.from.Up()
}

// file is change for what is no directory.
func (c *changes) file(ctx context.Context, name string, to *file.Dir) error {
	var st unix.Stat_t
	if err := c.Owners.Fstatat(c.from.FD(), name, &st); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	if layers.IsWhiteout(c.from.FD(), name, &st) {
		return errWhiteoutDevice
	}
	return c.Entry(ctx, c.from.FD(), &st, to, name)
}

var errWhiteoutDevice = errors.New("it is a device 0:0, which means a removed file in a layer")
