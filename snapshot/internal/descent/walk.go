package descent

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Walk calls visit for every entry below the directory root, parents first, with the
// open directory that it is in. An entry that goes while the walk is on its way is
// passed over. An error of visit, and the end of ctx, end the walk; what can't be read
// is left out, and the first reason is returned at the end.
func Walk(ctx context.Context, root int, visit func(dir int, name string, st *unix.Stat_t) error) error {
	w := walk{path: From(root), ctx: ctx, visit: visit}
	defer w.path.Close()
	if err := w.directory(); err != nil {
		return err
	}
	return w.skipped
}

// Remove removes the entry name of the directory dir and all below it. What can't be
// removed stays, with its parents; the first reason is returned when all else has
// gone. That there is no such entry is no error.
func Remove(dir int, name string) error {
	w := walk{path: From(dir), ctx: context.Background(), remove: true}
	defer w.path.Close()
	if err := w.entry(name); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	if w.skipped != nil {
		return fmt.Errorf("remove %s: %w", name, w.skipped)
	}
	return nil
}

// RemovePath is [Remove] of the file or directory at the path.
func RemovePath(path string) error { return Remove(unix.AT_FDCWD, path) }

// walk is one call of Walk or Remove.
type walk struct {
	path    *Path
	ctx     context.Context //nolint:containedctx // of one call
	visit   func(dir int, name string, st *unix.Stat_t) error
	remove  bool
	skipped error // why something was left out
}

// directory goes through the directory at the end of the path. Its error ends the
// walk.
func (w *walk) directory() error {
	names, err := Names(w.path.FD())
	w.skip(err)
	for _, name := range names {
		if err := context.Cause(w.ctx); err != nil {
			return err
		}
		if err := w.entry(name); err != nil {
			return err
		}
	}
	return nil
}

// skip notes why something was left out. A file that has gone meanwhile was not left out.
func (w *walk) skip(err error) {
	if w.skipped == nil && !errors.Is(err, os.ErrNotExist) {
		w.skipped = err
	}
}

// entry goes through the entry name of the directory at the end of the path, and
// through what is below it.
func (w *walk) entry(name string) error {
	dir := w.path.FD()
	if w.remove {
		err := unix.Unlinkat(dir, name, 0)
		if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) {
			w.skip(err)
			return nil
		}
	} else {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			w.skip(err)
			return nil
		}
		if err := w.visit(dir, name, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil
		}
	}
	if err := w.path.Down(name); err != nil {
		w.skip(err)
		return nil
	}
	if err := w.directory(); err != nil {
		return err
	}
	if err := w.path.Up(); err != nil {
		return err
	}
	if w.remove {
		w.skip(unix.Unlinkat(w.path.FD(), name, unix.AT_REMOVEDIR))
	}
	return nil
}
