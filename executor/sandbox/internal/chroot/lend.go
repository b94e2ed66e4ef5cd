package chroot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// copyTree makes a copy of a file or directory at the path.
func (ps *places) copyTree(ctx context.Context, from, to string) error {
	if ps.copy == nil {
		return errors.New("its source has to be copied, and the Runner can't copy")
	}
	if err := ps.copy(ctx, from, to); err != nil {
		return err
	}
	info, err := os.Lstat(from)
	if err != nil || !info.IsDir() {
		return err
	}
	return likeDir(to, info)
}

// likeDir gives a directory the owner, mode and time of another.
func likeDir(dir string, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		if err := os.Lchown(dir, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if err := os.Chmod(dir, info.Mode()); err != nil {
		return err
	}
	return os.Chtimes(dir, time.Time{}, info.ModTime())
}

// standIn is the suffix of the name of what is beside a source that was moved away:
// empty, with its owner and mode. It takes its place when the source doesn't come
// back, as when bob is killed.
const standIn = ".bob-away"

// lock waits until no other command has the sources that may be written, in an order
// that all commands have. The kernel ends the lock with this process.
func (ps *places) lock(ctx context.Context, mounts []Mount) error {
	var sources, dirs []string
	for _, m := range mounts {
		if m.Kind != Bind || m.ReadOnly {
			continue
		}
		if slices.Contains(sources, m.Source) {
			return fmt.Errorf("mount on %s: its source is mounted elsewhere, too, which takes mounts that this machine refuses: use one target", m.Target)
		}
		sources = append(sources, m.Source)
		dirs = append(dirs, filepath.Dir(m.Source))
	}
	slices.Sort(dirs)
	for _, name := range slices.Compact(dirs) {
		dir, err := os.Open(name)
		if err != nil {
			return err
		}
		ps.locks = append(ps.locks, dir)
		if err := lockDir(ctx, dir); err != nil {
			return err
		}
	}
	for _, source := range sources {
		if _, err := os.Lstat(source); errors.Is(err, fs.ErrNotExist) {
			_ = os.Rename(source+standIn, source) // there may be none
		}
	}
	return nil
}

// lockDir takes the flock(2) of an open directory.
func lockDir(ctx context.Context, dir *os.File) error {
	for {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return &os.PathError{Op: "flock", Path: dir.Name(), Err: err}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

// lockPause is how often one that waits looks again.
const lockPause = 20 * time.Millisecond

// lend places a source itself, so that what is written to it stays.
func (ps *places) lend(ctx context.Context, source string, pl *place) error {
	info, err := os.Lstat(source)
	if err != nil {
		return err
	}
	pl.source = source
	moved := ps.fresh()
	err = os.Rename(source, moved)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EBUSY) {
		pl.copied = true
		if err := ps.copyTree(ctx, source, moved); err != nil {
			return err
		}
		return ps.put(moved, pl)
	}
	if err != nil {
		return err
	}
	if err := makeStandIn(source, info); err != nil {
		return errors.Join(err, os.Rename(moved, source))
	}
	if err := ps.put(moved, pl); err != nil {
		return errors.Join(err, os.Rename(moved, source), os.Remove(source+standIn))
	}
	return nil
}

// makeStandIn makes one of a source with that owner and mode.
func makeStandIn(source string, info fs.FileInfo) error {
	name := source + standIn
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if info.IsDir() {
		if err := os.Mkdir(name, 0o700); err != nil {
			return err
		}
	} else if err := os.WriteFile(name, nil, 0o600); err != nil {
		return err
	}
	return likeDir(name, info)
}

// giveBack puts a lent source, which is at the path now, back where it was. Anything
// else is removed with the private directory.
func (ps *places) giveBack(ctx context.Context, pl *place, now string) error {
	switch {
	case pl.source == "":
		return nil
	case pl.copied:
		fresh := pl.source + standIn
		if err := ps.copyTree(ctx, now, fresh); err != nil {
			return err
		}
		if err := os.RemoveAll(pl.source); err != nil {
			return err
		}
		return os.Rename(fresh, pl.source)
	}
	if err := ps.unshareFiles(ctx, now); err != nil {
		return err
	}
	if err := os.Rename(now, pl.source); err != nil {
		return err
	}
	if err := os.Remove(pl.source + standIn); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unshareFiles replaces each file below dir that has another name outside of it by a
// copy: a layer must not change with a cache.
func (ps *places) unshareFiles(ctx context.Context, dir string) error {
	links := make(map[uint64][]string)
	counts := make(map[uint64]uint64)
	var found []uint64 // in the order of the first names
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: name, Err: err}
		}
		if st.Nlink > 1 {
			if len(links[st.Ino]) == 0 {
				found = append(found, st.Ino)
			}
			links[st.Ino] = append(links[st.Ino], name)
			counts[st.Ino] = uint64(st.Nlink) //nolint:unconvert // its type differs between architectures
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, ino := range found {
		names := links[ino]
		if uint64(len(names)) == counts[ino] {
			continue
		}
		fresh := names[0] + standIn
		if err := ps.copyTree(ctx, names[0], fresh); err != nil {
			return err
		}
		for _, name := range names[1:] {
			if err := errors.Join(os.Remove(name), os.Link(fresh, name)); err != nil {
				return err
			}
		}
		if err := os.Rename(fresh, names[0]); err != nil {
			return err
		}
	}
	return nil
}
