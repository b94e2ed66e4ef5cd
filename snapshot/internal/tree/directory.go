package tree

import (
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// FromDirectory returns the tree of the layer that lies in the directory dir, in overlay
// format. Files there have owners as the keeper says. With opaque the layer hides all of
// what is below it.
func FromDirectory(dir string, opaque bool, keeper owners.Keeper, marks layers.Marks) (*Layer, error) {
	root, err := unix.Open(dir, file.Directory, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)
	at := descent.From(root)
	defer at.Close()
	r := &reader{at, keeper, marks}
	top, err := r.directory(dir)
	if err != nil {
		return nil, err
	}
	top.opaque = top.opaque || opaque
	return &Layer{root: top}, nil
}

// reader reads a directory in overlay format.
type reader struct {
	at    *descent.Path
	keep  owners.Keeper
	marks layers.Marks
}

// directory returns the directory dir, where r.at is, with all below it.
func (r *reader) directory(dir string) (*Node, error) {
	n := NewDirectory()
	var err error
	if n.Attrs, err = file.ReadAttrs(r.at.FD(), r.keep); err != nil {
		return nil, err
	}
	if n.opaque, err = r.marks.IsOpaque(r.at.FD()); err != nil {
		return nil, err
	}
	names, err := descent.Names(r.at.FD())
	if err != nil {
		return nil, err
	}
	names, removed := r.marks.Split(names)
	for _, name := range names {
		if removed[name] {
			n.Kids[name] = &Node{Kind: unix.S_IFCHR, gone: true}
			continue
		}
		if n.Kids[name], err = r.entry(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// entry returns what is at path, in the directory where r.at is.
func (r *reader) entry(path string) (*Node, error) {
	name := filepath.Base(path)
	var st unix.Stat_t
	if err := r.keep.Fstatat(r.at.FD(), name, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: relpath.Brief(path), Err: err}
	}
	n := &Node{Attrs: file.AttrsOf(&st), Kind: st.Mode & unix.S_IFMT, gone: layers.IsWhiteout(r.at.FD(), name, &st), Disk: path}
	switch n.Kind {
	case unix.S_IFDIR:
		if err := r.at.Down(name); err != nil {
			return nil, err
		}
		n, err := r.directory(path)
		if err != nil {
			return nil, err
		}
		return n, r.at.Up()
	case unix.S_IFLNK:
		var err error
		n.Link, err = file.ReadLink(r.at.FD(), name)
		return n, err
	}
	return n, nil
}
