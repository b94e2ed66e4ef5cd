// Package mountpoint makes the mount points that a root file system lacks, and leaves no
// trace of them.
package mountpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	securejoin "github.com/cyphar/filepath-securejoin"
	"golang.org/x/sys/unix"
)

// A Set is the stubs of one run in one root file system. Each name in
// it is relative to the root and free of symlinks; os.Root has the kernel
// refuse whatever would lead outside.
type Set struct {
	// Root is the root file system.
	Root *os.Root

	dir     string
	stubs   []stub
	parents map[inode]*parent
}

// inode names a file as long as it exists.
type inode struct{ dev, ino uint64 }

// stub is an empty file or directory made to be mounted on.
type stub struct {
	name string
	info fs.FileInfo
}

// parent is a directory in which stubs were made, or entries moved.
type parent struct {
	before, after unix.Timespec // mtime before the first change, after the last
	changes       int           // how many of them are left
	touched       bool          // somebody else has changed it meanwhile
}

// Open returns an empty set for the root file system in dir. The
// caller removes it.
func Open(dir string) (*Set, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open root file system: %w", err)
	}
	return &Set{dir: dir, Root: root, parents: make(map[inode]*parent)}, nil
}

// Resolve returns the absolute path, inside the root file system, that target
// leads to when symlinks are followed as a process in the container would.
// What doesn't exist yet is taken as it is written.
func (m *Set) Resolve(target string) (string, error) {
	full, err := securejoin.SecureJoin(m.dir, target)
	if err != nil {
		return "", fmt.Errorf("resolve mount point %s: %w", target, err)
	}
	name, err := filepath.Rel(m.dir, full)
	if err != nil {
		return "", fmt.Errorf("resolve mount point %s: %w", target, err)
	}
	return path.Join("/", name), nil
}

// Unreachable reports whether nothing can be put where target leads to, by links of
// the image: they go in a circle, or to the kernel's own files. Such a link leads
// nowhere on any machine.
func (m *Set) Unreachable(target string) bool {
	resolved, err := m.Resolve(target)
	return errors.Is(err, unix.ELOOP) || err == nil && IsBelow(resolved, []string{"/proc", "/sys"})
}

// Make sees to it that something can be mounted on the resolved path: a
// directory, or a file if isDir is false. What exists is left alone, whatever
// it is: the mount then says what is wrong with it. It reports whether the path
// itself was made.
func (m *Set) Make(resolved string, isDir bool) (made bool, err error) {
	name := strings.TrimPrefix(resolved, "/")
	if name == "" {
		return false, fmt.Errorf("mount point %s: the root itself can't be mounted on", resolved)
	}
	elements := strings.Split(name, "/")
	for i := range elements {
		prefix := path.Join(elements[:i+1]...)
		if made, err = m.makeOne(prefix, isDir || i < len(elements)-1); err != nil {
			return false, fmt.Errorf("make mount point %s: %w", resolved, err)
		}
	}
	return made, nil
}

// makeOne makes one stub unless the name exists, and reports whether it did.
func (m *Set) makeOne(name string, isDir bool) (made bool, err error) {
	if _, err := m.Root.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	dir, err := m.Root.Open(path.Dir(name))
	if err != nil {
		return false, err
	}
	defer func() { _ = dir.Close() }()
	err = m.Change(dir, func() error {
		if !isDir {
			return m.makeFile(name)
		}
		if err := m.Root.Mkdir(name, 0o755); err != nil {
			return err
		}
		return m.Root.Chmod(name, 0o755) // whatever the umask
	})
	if err != nil {
		return false, err
	}
	info, err := m.Root.Lstat(name)
	if err != nil {
		return false, err
	}
	m.stubs = append(m.stubs, stub{name: name, info: info})
	return true, nil
}

// Change does something to a directory that Undo is to undo.
func (m *Set) Change(dir *os.File, do func() error) error {
	var before, after unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &before); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := do(); err != nil {
		return err
	}
	if err := unix.Fstat(int(dir.Fd()), &after); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	key := inode{uint64(before.Dev), before.Ino} //nolint:unconvert // its type differs between architectures
	p := m.parents[key]
	if p == nil {
		p = &parent{before: before.Mtim}
		m.parents[key] = p
	}
	p.changes++
	p.after = after.Mtim
	return nil
}

// Undo undoes a change of a directory. With the last of them the directory has its
// old mtime if nothing else has changed in it.
func (m *Set) Undo(dir *os.File, do func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := do(); err != nil {
		return err
	}
	p := m.parents[inode{uint64(st.Dev), st.Ino}] //nolint:unconvert // its type differs between architectures
	if p == nil {
		return nil // another directory has that name now
	}
	p.changes--
	mtime := st.Mtim
	p.touched = p.touched || mtime != p.after
	if p.changes == 0 && !p.touched {
		mtime = p.before
	}
	p.after = mtime
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime} // not when it was read
	// An empty path with AT_EMPTY_PATH means the descriptor itself.
	if err := unix.UtimesNanoAt(int(dir.Fd()), "", times, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("restore time of directory: %w", os.NewSyscallError("utimensat", err))
	}
	return nil
}

// makeFile makes an empty file.
func (m *Set) makeFile(name string) error {
	f, err := m.Root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o644), f.Close())
}

// Parents returns the directories in which stubs were made, relative to the root.
func (m *Set) Parents() []string {
	dirs := make([]string, 0, len(m.stubs))
	for _, s := range m.stubs {
		dirs = append(dirs, path.Dir(s.name))
	}
	return dirs
}

// Remove removes the stubs that are still empty, in reverse, and restores the
// mtime of a directory in which nothing else has changed.
func (m *Set) Remove() error {
	var errs []error
	for _, s := range slices.Backward(m.stubs) {
		errs = append(errs, m.removeOne(s))
	}
	return errors.Join(append(errs, m.Root.Close())...)
}

// removeOne removes a stub unless the command made something of it.
func (m *Set) removeOne(s stub) error {
	info, err := m.Root.Lstat(s.name)
	if err != nil || !unchanged(s.info, info) {
		return nil // the command removed or replaced it: its own change
	}
	dir, err := m.Root.Open(path.Dir(s.name))
	if err != nil {
		return fmt.Errorf("remove mount point: %w", err)
	}
	defer func() { _ = dir.Close() }()
	err = m.Undo(dir, func() error { return m.Root.Remove(s.name) })
	if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) { // the command filled it
		return fmt.Errorf("remove mount point: %w", err)
	}
	return nil
}

// unchanged reports whether a stub is still what was made. The size and times
// of a directory say nothing: whether it is empty shows when it is removed.
func unchanged(was, is fs.FileInfo) bool {
	a, okA := was.Sys().(*syscall.Stat_t)
	b, okB := is.Sys().(*syscall.Stat_t)
	return okA && okB && os.SameFile(was, is) && was.Mode() == is.Mode() &&
		a.Uid == b.Uid && a.Gid == b.Gid && (is.IsDir() || is.Size() == 0)
}

// IsBelow reports whether the target lies below one of the mount points.
func IsBelow(target string, mounts []string) bool {
	return slices.ContainsFunc(mounts, func(m string) bool { return strings.HasPrefix(target, m+"/") })
}
