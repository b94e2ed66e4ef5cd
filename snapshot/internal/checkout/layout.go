package checkout

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/internal/trash"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// A Place is where copies are made, and how files are there. Owners and Marks are what
// the layers have, too.
type Place struct {
	Active string // the directory of the claims of what is being written
	Bin    *trash.Bin
	Owners owners.Keeper
	Marks  layers.Marks
}

// layout copies what a stack of layers shows into one directory.
type layout struct {
	*file.Copier

	layers *layers.Stack
}

// layOut makes the empty directory root what an overlay of dirs, layers with the top first,
// would show. It shares no file with them.
func (p Place) layOut(ctx context.Context, dirs []string, root string) error {
	c, err := file.NewCopier(root, p.Owners)
	if err != nil {
		return err
	}
	defer c.Close()
	l := &layout{c, layers.New(dirs, p.Owners, p.Marks)}
	defer l.layers.Close()
	return l.directory(ctx, l.layers.Root(), c.Top())
}

// directory copies the directory d to the directory to.
func (l *layout) directory(ctx context.Context, d layers.Dir, to *file.Dir) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	a, err := l.layers.Attrs(d)
	if err != nil {
		return fmt.Errorf("copy directory %q: %w", relpath.Brief(d.Path), err)
	}
	below, err := l.files(ctx, d, to)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(below)) {
		if err := l.InNewDirectory(to, name, func(made *file.Dir) error { return l.directory(ctx, below[name], made) }); err != nil {
			return err
		}
	}
	if err := a.Apply(to.FD, true, l.Owners); err != nil {
		return fmt.Errorf("copy directory %q: %w", relpath.Brief(d.Path), err)
	}
	return nil
}

// files copies what isn't a directory in d, and returns its directories.
func (l *layout) files(ctx context.Context, d layers.Dir, to *file.Dir) (map[string]layers.Dir, error) {
	below := map[string]layers.Dir{}
	settled := map[string]bool{} // names that the layers further down don't change
	for _, layer := range d.Layers {
		if err := l.part(ctx, d, layer, to, below, settled); err != nil {
			return nil, err
		}
	}
	return below, nil
}

// part is files for one layer.
func (l *layout) part(ctx context.Context, d layers.Dir, layer int, to *file.Dir, below map[string]layers.Dir, settled map[string]bool) error {
	fd, err := l.layers.Open(layer, d.Path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := descent.Names(fd)
	if err != nil {
		return fmt.Errorf("read directory %q: %w", relpath.Brief(d.Path), err)
	}
	names, removed := l.layers.Marks.Split(names)
	for _, name := range names {
		if settled[name] {
			continue
		}
		if settled[name] = removed[name]; removed[name] {
			continue
		}
		path := relpath.Join(d.Path, name)
		var st unix.Stat_t
		if err := l.Owners.Fstatat(fd, name, &st); err != nil {
			return fmt.Errorf("stat %q: %w", relpath.Brief(path), err)
		}
		b := below[name]
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			below[name] = layers.Dir{Layers: append(b.Layers, layer), Path: path}
			if settled[name], err = l.layers.Opaque(layer, path); err != nil {
				return err
			}
			continue
		}
		settled[name] = true
		if layers.IsWhiteout(fd, name, &st) || b.Exists() {
			continue
		}
		if err := l.Entry(ctx, fd, &st, to, name); err != nil {
			return fmt.Errorf("copy %q: %w", relpath.Brief(path), err)
		}
	}
	return nil
}
