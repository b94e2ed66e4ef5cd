package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Where nothing can be mounted, what a command is to find is moved into its root
// file system, what is there is moved out of the way, and both go back afterwards.
// Sources that may be written are moved themselves; others are copied.

// places are the things put into one root file system for a run.
type places struct {
	points *mountPoints
	dir    string // private, on the same file system as the root
	copy   func(ctx context.Context, from, to string) error
	names  int // that were given out in dir
	all    []*place
	locks  []*os.File // of the directories from which sources were taken
}

// place is one of them.
type place struct {
	mount    bool     // whether the process asked for it
	target   string   // as it is asked for
	resolved string   // relative to the root
	parent   *os.File // where it is in the root file system
	base     string   // its name there
	own      *os.File // itself: for writing if it is a secret, else O_PATH
	info     fs.FileInfo
	hidden   string // in the private directory: what it took the place of
	source   string // where it goes back to, "" if it is removed
	copied   bool   // whether it is a copy of source
	secret   bool
	tmpfs    bool // whether it has the mode of what it hides
}

// openPlaces returns an empty set. dir is an empty private directory, and copies are
// made by clone. The caller removes the places.
func openPlaces(root, dir string, clone func(ctx context.Context, from, to string) error) (*places, error) {
	points, err := openMountPoints(root)
	if err != nil {
		return nil, err
	}
	return &places{points: points, dir: dir, copy: clone}, nil
}

// fresh returns an unused path in the private directory.
func (ps *places) fresh() string {
	ps.names++
	return filepath.Join(ps.dir, strconv.Itoa(ps.names))
}

// addSystem places what every command has, but where a mount of the process takes the
// place.
func (ps *places) addSystem(extraHosts []string, mounts []Mount) error {
	// The host name can't be another than the machine's.
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	taken := func(target string) bool {
		return slices.ContainsFunc(mounts, func(m Mount) bool { return path.Clean(m.Target) == target })
	}
	for _, d := range []struct {
		target string
		build  func(string) error
	}{{"/dev", makeDevices}, {"/proc", makeProc}} {
		if taken(d.target) {
			continue
		}
		dir := ps.fresh()
		if err := d.build(dir); err != nil {
			return fmt.Errorf("make %s for the command: %w", d.target, err)
		}
		if err := ps.put(dir, &place{target: d.target}); err != nil {
			return err
		}
	}
	// Behind /dev and /proc, to which links of the image may lead.
	etc, err := writeHostFiles(ps.dir, hostname, extraHosts, "")
	if err != nil {
		return err
	}
	for _, m := range etc {
		if taken(m.Target) || ps.points.unreachable(m.Target) {
			continue
		}
		if err := ps.put(m.Source, &place{target: m.Target}); err != nil {
			return err
		}
	}
	return nil
}

// addMounts places the mounts of the process.
func (ps *places) addMounts(ctx context.Context, mounts []Mount) error {
	mounts = slices.Clone(mounts)
	for i, m := range mounts {
		if m.Kind != Bind {
			continue
		}
		source, err := realSource(m.Source)
		if err != nil {
			return fmt.Errorf("mount on %s: %w", m.Target, err)
		}
		mounts[i].Source = source
	}
	if err := ps.lock(ctx, mounts); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := ps.add(ctx, m); err != nil {
			return fmt.Errorf("mount on %s: %w", m.Target, err)
		}
	}
	return nil
}

// realSource returns the path of a source without links in it.
func realSource(source string) (string, error) {
	if !strings.HasPrefix(source, openSource) {
		name, err := filepath.EvalSymlinks(source)
		if !errors.Is(err, fs.ErrNotExist) {
			return name, err
		}
		// Another command may have it now.
		dir, err := filepath.EvalSymlinks(filepath.Dir(source))
		return filepath.Join(dir, filepath.Base(source)), err
	}
	name, err := os.Readlink(source)
	if err != nil {
		return "", err
	}
	opened, err := os.Stat(source)
	if err != nil {
		return "", err
	}
	named, err := os.Lstat(name)
	if err != nil || !os.SameFile(opened, named) {
		return "", errors.Join(errors.New("another command moved its source: build again"), err)
	}
	return name, nil
}

// add places one mount.
func (ps *places) add(ctx context.Context, m Mount) error {
	pl := &place{mount: true, target: m.Target}
	switch m.Kind {
	case Tmpfs:
		pl.tmpfs = true
		dir := ps.fresh()
		if err := makeDir(dir, 0o777|fs.ModeSticky); err != nil {
			return err
		}
		return ps.put(dir, pl)
	case Memory:
		pl.secret = true
		file := ps.fresh()
		if err := makeFile(file, m.File.Content, 0o600); err != nil {
			return err
		}
		if err := os.Lchown(file, int(m.File.UID), int(m.File.GID)); err != nil {
			return err
		}
		if err := os.Chmod(file, fs.FileMode(m.File.Mode&0o777)); err != nil {
			return err
		}
		return ps.put(file, pl)
	case Bind:
	}
	info, err := os.Stat(m.Source)
	switch {
	case err != nil:
		return err
	case info.Mode().Type() == fs.ModeSocket:
		link := ps.fresh()
		if err := os.Link(m.Source, link); err != nil {
			return err
		}
		return ps.put(link, pl)
	case m.ReadOnly:
		copied := ps.fresh()
		if err := ps.copyTree(ctx, m.Source, copied); err != nil {
			return err
		}
		return ps.put(copied, pl)
	}
	return ps.lend(ctx, m.Source, pl)
}

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

// put moves what is at the path into the root file system, and what is there out of
// the way.
func (ps *places) put(from string, pl *place) (err error) {
	if pl.info, err = os.Lstat(from); err != nil {
		return err
	}
	resolved, err := ps.points.resolve(pl.target)
	if err != nil {
		return err
	}
	pl.resolved = strings.TrimPrefix(resolved, "/")
	made, err := ps.points.make(resolved, pl.info.IsDir())
	if err != nil {
		return err
	}
	there, err := ps.points.root.Lstat(pl.resolved)
	if err != nil {
		return err
	}
	if there.IsDir() != pl.info.IsDir() {
		return &os.PathError{Op: "mount", Path: resolved, Err: unix.ENOTDIR}
	}
	if pl.tmpfs && !made {
		if err := os.Chmod(from, there.Mode()); err != nil {
			return err
		}
	}
	flags := unix.O_PATH
	if pl.secret {
		flags = unix.O_WRONLY
	}
	fd, err := unix.Open(from, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: from, Err: err}
	}
	pl.own = os.NewFile(uintptr(fd), from)
	dir := path.Dir(pl.resolved)
	pl.base = path.Base(pl.resolved)
	if pl.parent, err = ps.points.root.Open(dir); err != nil {
		return errors.Join(err, pl.own.Close())
	}
	if err := ps.swap(from, pl); err != nil {
		return errors.Join(err, pl.own.Close(), pl.parent.Close())
	}
	ps.all = append(ps.all, pl)
	return nil
}

// swap does the moving.
func (ps *places) swap(from string, pl *place) error {
	pl.hidden = ps.fresh()
	parent := int(pl.parent.Fd())
	return ps.points.change(pl.parent, func() error {
		if err := unix.Renameat(parent, pl.base, unix.AT_FDCWD, pl.hidden); err != nil {
			if errors.Is(err, unix.EXDEV) {
				return fmt.Errorf("move /%s out of the way: bob's private directory %s is on another file system than the root file system: %w", pl.resolved, ps.dir, err)
			}
			return &os.PathError{Op: "move out of the way", Path: "/" + pl.resolved, Err: err}
		}
		if err := unix.Renameat(unix.AT_FDCWD, from, parent, pl.base); err != nil {
			return errors.Join(&os.PathError{Op: "place", Path: "/" + pl.resolved, Err: err},
				unix.Renameat(unix.AT_FDCWD, pl.hidden, parent, pl.base))
		}
		return nil
	})
}

// secrets returns the open files that hold secrets.
func (ps *places) secrets() []*os.File {
	var files []*os.File
	for _, pl := range ps.all {
		if pl.secret {
			files = append(files, pl.own)
		}
	}
	return files
}

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
	for _, s := range ps.points.stubs {
		restored = append(restored, path.Dir(s.name))
	}
	errs = append(errs, ps.points.remove())
	for _, l := range ps.locks {
		errs = append(errs, l.Close())
	}
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
	errMove := ps.points.undo(pl.parent, func() error {
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

// sameInode reports whether st is the file of info.
func sameInode(st *unix.Stat_t, info fs.FileInfo) bool {
	was, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Ino == was.Ino && uint64(st.Dev) == was.Dev //nolint:unconvert // its type differs between architectures
}
