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

// sources are what mounts show of the machine. Those that may be written are taken away
// themselves, by one command at a time; others are copied.
type sources struct {
	// copy copies a file or directory to a path where nothing is; nil can't.
	copy  func(ctx context.Context, from, to string) error
	locks []*os.File // of the directories from which sources were taken
}

// copyTree makes a copy of a file or directory at the path.
func (s *sources) copyTree(ctx context.Context, from, to string) error {
	if s.copy == nil {
		return errors.New("its source has to be copied, and the Runner can't copy")
	}
	if err := s.copy(ctx, from, to); err != nil {
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
func (s *sources) lock(ctx context.Context, mounts []Mount) error {
	var all, dirs []string
	for _, m := range mounts {
		if m.Kind != Bind || m.ReadOnly {
			continue
		}
		if slices.Contains(all, m.Source) {
			return fmt.Errorf("mount on %s: its source is mounted elsewhere, too, which takes mounts that this machine refuses: use one target", m.Target)
		}
		all = append(all, m.Source)
		dirs = append(dirs, filepath.Dir(m.Source))
	}
	slices.Sort(dirs)
	for _, name := range slices.Compact(dirs) {
		dir, err := os.Open(name)
		if err != nil {
			return err
		}
		s.locks = append(s.locks, dir)
		if err := lockDir(ctx, dir); err != nil {
			return err
		}
	}
	for _, source := range all {
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

// take moves a source to the path, so that what is written to it stays, or makes a copy
// there where it can't be moved. It reports whether it did the latter.
func (s *sources) take(ctx context.Context, source, to string) (copied bool, err error) {
	info, err := os.Lstat(source)
	if err != nil {
		return false, err
	}
	err = os.Rename(source, to)
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EBUSY) {
		return true, s.copyTree(ctx, source, to)
	}
	if err != nil {
		return false, err
	}
	if err := makeStandIn(source, info); err != nil {
		return false, errors.Join(err, os.Rename(to, source))
	}
	return false, nil
}

// untake moves back what was moved to the path, where nothing has seen it.
func untake(source, to string) error {
	return errors.Join(os.Rename(to, source), os.Remove(source+standIn))
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

// giveBack puts a source that was taken, and is at the path now, back where it was; what is
// at the path takes its place if it was copied.
func (s *sources) giveBack(ctx context.Context, source, now string, copied bool) error {
	if copied {
		fresh := source + standIn
		if err := s.copyTree(ctx, now, fresh); err != nil {
			return err
		}
		if err := os.RemoveAll(source); err != nil {
			return err
		}
		return os.Rename(fresh, source)
	}
	if err := s.unshareFiles(ctx, now); err != nil {
		return err
	}
	if err := os.Rename(now, source); err != nil {
		return err
	}
	if err := os.Remove(source + standIn); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unshareFiles replaces each file below dir that has another name outside of it by a
// copy: a layer must not change with a cache.
func (s *sources) unshareFiles(ctx context.Context, dir string) error {
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
		if err := s.copyTree(ctx, names[0], fresh); err != nil {
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

// unlock lets other commands have the sources.
func (s *sources) unlock() error {
	var errs []error
	for _, l := range s.locks {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
