package snapshot

import (
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/bobbuild/bob/snapshot/internal/checkout"
	"github.com/bobbuild/bob/snapshot/internal/content"
	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/internal/underlay"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// indexes is the snapshotter that mounts nothing and unpacks layers only when their files
// are read.
type indexes struct{ *indexed }

func (s indexes) unpack(ctx context.Context, parent string, all []content.Layer, jobs int) (string, error) {
	s.offer(parent, all)
	if jobs < 1 {
		jobs = runtime.GOMAXPROCS(0)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	below := parent
	for _, l := range all {
		on := below
		group.Go(func() error { return s.add(gctx, on, l) })
		below = content.StackID(below, l.DiffID)
	}
	return below, group.Wait()
}

func (s indexes) prepare(_ context.Context, dir string, below checkout.Stack) (changedFileSystem, error) {
	files, err := s.tree(below.ID)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(dir, "fs")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, err
	}
	return underlay.New(root, files, s.owners, s.marks, func(ctx context.Context, path string) (io.ReadCloser, error) {
		return s.openFile(ctx, below.ID, path)
	})
}

// openFile opens the regular file at the path of the snapshot id.
func (s indexes) openFile(ctx context.Context, id, path string) (io.ReadCloser, error) {
	dirs, err := s.unpackAll(ctx, id)
	if err != nil {
		return nil, err
	}
	st := layers.New(dirs, s.owners, s.marks)
	defer st.Close()
	parent, base := relpath.Split(path)
	d, err := st.At(parent)
	if err != nil {
		return nil, err
	}
	e, ok, err := st.Lookup(d, base)
	if err == nil && !ok {
		err = &os.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	return descent.OpenFile(filepath.Join(dirs[e.Layer], path))
}

// view makes a tree of other names of all files.
func (s indexes) view(ctx context.Context, dir string, shown checkout.Stack) (fileSystem, error) {
	dirs, err := s.unpackAll(ctx, shown.ID)
	if err != nil {
		return nil, err
	}
	root := linked(filepath.Join(dir, "fs"))
	if err := os.Mkdir(root.Root(), 0o700); err != nil {
		return nil, err
	}
	if len(dirs) == 0 {
		return root, file.CopyAttrs(s.atLeast(1, nil)[0], root.Root(), s.owners)
	}
	st := layers.New(dirs, s.owners, s.marks)
	defer st.Close()
	fd, err := unix.Open(root.Root(), file.Directory, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root.Root(), Err: err}
	}
	defer unix.Close(fd)
	to := descent.From(fd)
	defer to.Close()
	return root, st.LinkInto(ctx, st.Root(), to)
}

func (indexes) close() error { return nil }

// linked is the path of a directory that has other names of all files of a snapshot.
type linked string

// Root returns the path.
func (l linked) Root() string { return string(l) }

// End does nothing: who made the directory removes it.
func (linked) End() error { return nil }
