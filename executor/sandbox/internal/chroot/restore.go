package chroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// remove takes everything out of the root file system, and puts back what was
// moved. It returns the paths of what is as it was. No process of the command runs.
func (ps *places) remove(ctx context.Context) (restored []string, err error) {
	var errs []error
	for _, pl := range slices.Backward(ps.all) {
		back, err := ps.removeOne(ctx, pl)
		if err != nil {
			errs = append(errs, fmt.Errorf("mount on %s: %w", pl.target, err))
		}
		if back {
			restored = append(restored, pl.resolved, path.Dir(pl.resolved))
		}
		errs = append(errs, pl.own.Close(), pl.parent.Close())
	}
	restored = append(restored, ps.points.Parents()...)
	errs = append(errs, ps.points.Remove())
	errs = append(errs, ps.sources.unlock())
	slices.Sort(restored)
	return slices.Compact(restored), errors.Join(errs...)
}

// removeOne removes one place. It reports whether what was hidden is back.
func (ps *places) removeOne(ctx context.Context, pl *place) (back bool, err error) {
	if pl.secret {
		err = wipe(int(pl.own.Fd()))
	}
	parent := int(pl.parent.Fd())
	var st unix.Stat_t
	errStat := unix.Fstatat(parent, pl.base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errStat != nil || !sameInode(&st, pl.info) {
		// The command removed or replaced it: of what it found in /etc, that is its
		// own change.
		return false, errors.Join(err, ps.lost(ctx, pl, errStat == nil))
	}
	out := ps.fresh()
	errMove := ps.points.Undo(pl.parent, func() error {
		if err := unix.Renameat(parent, pl.base, unix.AT_FDCWD, out); err != nil {
			return &os.PathError{Op: "take away", Path: "/" + pl.resolved, Err: err}
		}
		if err := unix.Renameat(unix.AT_FDCWD, pl.hidden, parent, pl.base); err != nil {
			return &os.PathError{Op: "put back", Path: "/" + pl.resolved, Err: err}
		}
		return nil
	})
	if pl.secret && st.Nlink > 1 {
		err = errors.Join(err, errLinked)
	}
	return errMove == nil, errors.Join(err, errMove, ps.giveBack(ctx, pl, out))
}

// giveBack gives back the source that is at the path now. Anything else is removed with the
// private directory.
func (ps *places) giveBack(ctx context.Context, pl *place, now string) error {
	if pl.source == "" {
		return nil
	}
	return ps.sources.giveBack(ctx, pl.source, now, pl.copied)
}

// What no container lets a command do with a mount.
var (
	errLinked   = errors.New("the command gave it another name, which no container allows: copy what is needed of it")
	errReplaced = errors.New("the command put something else in its place, which no container allows: use another path")
)

// lost deals with something that isn't where it was placed any more.
func (ps *places) lost(ctx context.Context, pl *place, replaced bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(pl.own.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	out := ""
	if st.Nlink > 0 {
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", pl.own.Fd()))
		if err != nil {
			return err
		}
		var found unix.Stat_t
		if unix.Lstat(name, &found) == nil && sameInode(&found, pl.info) {
			out = ps.fresh()
			if err := os.Rename(name, out); err != nil {
				return err
			}
		}
	}
	var err error
	switch {
	case out != "":
		err = ps.giveBack(ctx, pl, out)
	case pl.source != "" && !pl.copied:
		err = ps.giveBack(ctx, pl, pl.source+standIn)
	}
	switch {
	case pl.mount && st.Nlink > 0:
		return errors.Join(err, errLinked)
	case pl.mount && replaced:
		return errors.Join(err, errReplaced)
	}
	return err
}

// sameInode reports whether st is the file of info.
func sameInode(st *unix.Stat_t, info fs.FileInfo) bool {
	was, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Ino == was.Ino && uint64(st.Dev) == was.Dev //nolint:unconvert // its type differs between architectures
}
