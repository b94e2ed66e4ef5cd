package layertar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"

	"golang.org/x/sys/unix"
)

// settler settles a layer that was extracted by itself with the layers below it.
type settler struct {
	x      *extractor
	root   string        // of the layer
	lower  *layers.Stack // the layers below
	merged *layers.Stack // the same with the layer itself on top
	// lent are files of the layers below that have a name in this one, and copies of such.
	lent map[file.Inode]*lentFile
}

// lentFile is a file of the layer below, at target, which in this one has the names.
type lentFile struct {
	layer  int // of settler.merged; -1 for a copy, which is this layer's own
	target string
	names  []string
}

// settle finishes the layer x in directory root on top of the layers lower:
// directories without an entry take their attributes from below, or are where
// the link leads that is there; hard links find their targets.
func (x *extractor) settle(ctx context.Context, root string, lower []string) error {
	if x.layer.opaqueAt[""] {
		lower = nil
	}
	keeper, marks := x.opt.Owners, x.layer.marks
	s := &settler{
		x: x, root: root, lent: map[file.Inode]*lentFile{},
		lower: layers.New(lower, keeper, marks), merged: layers.New(slices.Concat([]string{root}, lower), keeper, marks),
	}
	s.lower.Remember()
	defer s.lower.Close()
	defer s.merged.Close()
	if err := s.directories(); err != nil {
		return err
	}
	for _, l := range x.layer.links {
		x.tree.trim()
		if err := s.link(ctx, l); err != nil {
			return fmt.Errorf("extract %q: %w", l.Path, err)
		}
	}
	// Copies and links above may have made more directories.
	if err := s.directories(); err != nil {
		return err
	}
	return x.finish()
}

// directories settles the implicit directories, parents first, until none is left.
func (s *settler) directories() error {
	implicit := s.x.layer.implicit
	var empty []string
	for len(implicit) > 0 { // settling one may add others, or rename them
		for _, path := range slices.Sorted(maps.Keys(implicit)) {
			if !implicit[path] {
				continue
			}
			delete(implicit, path)
			s.x.tree.trim()
			kept, err := s.directory(path)
			if err != nil {
				return fmt.Errorf("directory %q: %w", path, err)
			}
			if !kept {
				empty = append(empty, path)
			}
		}
	}
	slices.Sort(empty)
	for _, path := range slices.Backward(slices.Compact(empty)) {
		if err := s.prune(path); err != nil {
			return fmt.Errorf("directory %q: %w", path, err)
		}
	}
	return nil
}

// directory settles the implicit directory path. It returns false if the layers
// below have nothing there that the directory would change.
func (s *settler) directory(path string) (kept bool, err error) {
	if path == "" {
		if d := s.lower.Root(); d.Exists() {
			s.x.dirs[""], err = s.lower.Attrs(d)
		} else {
			s.x.dirs[""] = file.ImplicitAttrs
		}
		return true, err
	}
	parent, base := relpath.Split(path)
	d, err := s.below(parent)
	if err != nil {
		return false, err
	}
	e, ok, err := s.lower.Lookup(d, base)
	if err != nil || !ok {
		return false, err
	}
	switch e.Stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if s.x.layer.opaqueAt[path] {
			return true, nil
		}
		s.x.dirs[path], err = s.lower.Attrs(e.Dir)
	case unix.S_IFLNK:
		err = s.redirect(path)
	}
	return true, err
}

// below returns what the layers below have at path, as far as this layer doesn't
// hide it.
func (s *settler) below(path string) (layers.Dir, error) {
	for p := path; p != ""; p, _ = relpath.Split(p) {
		if s.x.layer.opaqueAt[p] {
			return layers.Dir{}, nil
		}
	}
	return s.lower.At(path)
}

// prune removes the directory path if whiteouts are all it holds.
func (s *settler) prune(path string) error {
	parent, base := relpath.Split(path)
	p, err := s.x.tree.open(parent)
	if err != nil {
		return err
	}
	d, err := s.x.tree.child(p, base)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil // replaced by what another directory was merged with
	}
	if err != nil {
		return err
	}
	names, err := descent.Names(d.FD)
	if err != nil {
		return err
	}
	for _, n := range names {
		var st unix.Stat_t
		if err := s.x.opt.Owners.Fstatat(d.FD, n, &st); err != nil {
			return err
		}
		if !s.x.layer.marks.IsMark(d.FD, n, &st) {
			return nil
		}
	}
	return s.x.remove(p, base)
}

// redirect moves what is in the implicit directory path to where the link leads
// that the layers below have in its place.
func (s *settler) redirect(path string) error {
	parent, base := relpath.Split(path)
	d, err := s.below(parent)
	if err != nil {
		return err
	}
	e, _, err := s.lower.Lookup(d, base)
	if err != nil {
		return err
	}
	link, err := s.lower.ReadLink(e.Layer, relpath.Join(d.Path, base))
	if err != nil {
		return err
	}
	from := parent
	if strings.HasPrefix(link, "/") {
		from = ""
	}
	target, err := s.merged.Resolve(relpath.Join(from, link), true)
	if err != nil {
		return err
	}
	if target == path || strings.HasPrefix(target, path+"/") {
		return fmt.Errorf("link below leads into itself: %w", unix.ELOOP)
	}
	if err := s.move(path, target); err != nil {
		return fmt.Errorf("move to %q: %w", target, err)
	}
	return nil
}

// move merges the directory path into the directory target, which it makes.
func (s *settler) move(path, target string) error {
	x := s.x
	to, err := x.tree.resolve(target, true)
	if err != nil {
		return err
	}
	if err := s.merge(path, to.Path); err != nil {
		return err
	}
	parent, base := relpath.Split(path)
	p, err := x.tree.open(parent)
	if err != nil {
		return err
	}
	return x.remove(p, base)
}

// merge moves the entries of the directory from into the directory to, whose own
// they replace unless both are directories, and what is noted about them.
func (s *settler) merge(from, to string) error {
	x := s.x
	f, err := x.tree.open(from)
	if err != nil {
		return err
	}
	if x.layer.opaqueAt[from] {
		t, err := x.tree.open(to)
		if err == nil {
			err = x.markOpaque(t)
		}
		if err != nil {
			return err
		}
	}
	names, err := descent.Names(f.FD)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := s.moveEntry(from, to, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *settler) moveEntry(from, to, name string) error {
	x := s.x
	f, err := x.tree.open(from)
	if err != nil {
		return err
	}
	t, err := x.tree.open(to)
	if err != nil {
		return err
	}
	var src, dst unix.Stat_t
	if err := x.opt.Owners.Fstatat(f.FD, name, &src); err != nil {
		return err
	}
	if hidden, isMark := x.layer.marks.MarkOf(name); isMark {
		if own, err := layers.Exists(t.FD, hidden); own || err != nil {
			return err
		}
	}
	err = unix.Fstatat(t.FD, name, &dst, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return err
	case src.Mode&unix.S_IFMT == unix.S_IFDIR && dst.Mode&unix.S_IFMT == unix.S_IFDIR:
		x.adopt(relpath.Join(from, name), relpath.Join(to, name))
		return s.merge(relpath.Join(from, name), relpath.Join(to, name))
	case x.layer.marks.IsMark(f.FD, name, &src):
		return nil // as when the layer is extracted: its own entries win
	case strings.HasPrefix(from+"/", relpath.Join(to, name)+"/"):
		return fmt.Errorf("%q would replace its own parent directory: %w", relpath.Join(from, name), unix.EEXIST)
	default:
		if err := x.remove(t, name); err != nil {
			return err
		}
	}
	if err := unix.Renameat(f.FD, name, t.FD, name); err != nil {
		return fmt.Errorf("rename %q: %w", relpath.Join(from, name), err)
	}
	if src.Mode&unix.S_IFMT == unix.S_IFDIR {
		x.tree.forget(relpath.Join(from, name))
		x.moved(relpath.Join(from, name), relpath.Join(to, name))
	}
	return nil
}

// adopt notes for the directory to what is noted for from, if that has an entry of
// its own.
func (x *extractor) adopt(from, to string) {
	if !x.layer.implicit[from] {
		x.dirs[to] = x.dirs[from]
		delete(x.layer.implicit, to)
	}
}

// moved renames what is noted about the directory from and those below it.
func (x *extractor) moved(from, to string) {
	rename(x.dirs, from, to)
	rename(x.layer.implicit, from, to)
	rename(x.layer.opaqueAt, from, to)
	for i, l := range x.layer.links {
		if strings.HasPrefix(l.Path, from+"/") {
			x.layer.links[i].Path = to + l.Path[len(from):]
		}
	}
}

// rename moves the values of the paths at and below from.
func rename[V any](m map[string]V, from, to string) {
	for _, p := range slices.Collect(maps.Keys(m)) {
		if p == from || strings.HasPrefix(p, from+"/") {
			m[to+p[len(from):]] = m[p]
			delete(m, p)
		}
	}
}

// link makes the hard link l, whose target wasn't in the layer when its entry was
// read, and gives the file the attributes of the entry. A target that came later in the
// layer keeps those of its own entry, which is the last one.
func (s *settler) link(ctx context.Context, l Link) error {
	x := s.x
	parent, base := relpath.Split(l.Path)
	p, err := x.tree.resolve(parent, true)
	if err != nil {
		return err
	}
	own, err := x.linkHere(p, base, l.Target)
	if err != nil {
		return err
	}
	if !own {
		if err := s.linkBelow(p, base, l.Target); err != nil {
			return err
		}
	}
	st, err := x.stat(p, base)
	if err != nil {
		return err
	}
	lent := s.lent[file.InodeOf(&st)]
	if own && lent == nil {
		return nil
	}
	if lent != nil && lent.layer >= 0 {
		lent.names = append(lent.names, relpath.Join(p.Path, base))
		a, err := file.AttrsAt(p.FD, base, &st, x.opt.Owners)
		if err != nil || a.Linked(l.Attrs.Archived(), st.Mode&unix.S_IFMT == unix.S_IFLNK).Equal(a) {
			return err
		}
		if err := s.copyUp(ctx, lent); err != nil {
			return fmt.Errorf("copy %q: %w", lent.target, err)
		}
	}
	return x.setLinked(p, base, l.Attrs)
}

// linkBelow makes the entry base of p another name of the file that target leads to. One
// of a layer below gets a name in this one: the overlay shows both names as one file.
func (s *settler) linkBelow(p *file.Dir, base, target string) error {
	path, err := s.merged.Resolve(target, false)
	if err != nil {
		return fmt.Errorf("target %q: %w", target, err)
	}
	dirName, last := relpath.Split(path)
	d, err := s.merged.At(dirName)
	if err != nil {
		return err
	}
	e, ok, err := s.merged.Lookup(d, last)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("target %q: %w", target, unix.ENOENT)
	}
	if e.Stat.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("target %q is a directory", target)
	}
	from, err := s.merged.FD(e.Layer)
	if err == nil {
		err = s.x.fresh(p, base, func() error { return unix.Linkat(from, path, p.FD, base, 0) })
	}
	if err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	if id := file.InodeOf(&e.Stat); e.Layer > 0 && s.lent[id] == nil {
		s.lent[id] = &lentFile{layer: e.Layer, target: path}
	}
	return nil
}

// copyUp makes the lent file one of this layer, under all of its names here and that of the
// target, before it is changed: what other snapshots have is never written to.
func (s *settler) copyUp(ctx context.Context, lent *lentFile) error {
	parent, base := relpath.Split(lent.target)
	from, err := s.merged.Open(lent.layer, parent)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := s.x.tree.resolve(parent, true)
	if err != nil {
		return err
	}
	st, err := s.x.stat(&file.Dir{FD: from}, base)
	if err != nil {
		return err
	}
	c, err := file.NewCopier(s.root, s.x.opt.Owners)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Entry(ctx, from, &st, to, base); err != nil {
		return err
	}
	for _, name := range lent.names {
		parent, last := relpath.Split(name)
		p, err := s.x.tree.open(parent)
		if err == nil {
			err = s.x.fresh(p, last, func() error { return unix.Linkat(to.FD, base, p.FD, last, 0) })
		}
		if err != nil {
			return err
		}
	}
	copied, err := s.x.stat(to, base)
	lent.layer = -1
	s.lent[file.InodeOf(&copied)] = lent
	return err
}
