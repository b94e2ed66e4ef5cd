package chroot

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

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/mountpoint"
)

// places are the things put into one root file system for a run. Where nothing can be
// mounted, what a command is to find is moved there, what is there is moved out of the way,
// and both go back afterwards.
type places struct {
	points  *mountpoint.Set
	dir     string // private, on the same file system as the root
	names   int    // that were given out in dir
	all     []*place
	sources sources
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
	points, err := mountpoint.Open(root)
	if err != nil {
		return nil, err
	}
	return &places{points: points, dir: dir, sources: sources{copy: clone}}, nil
}

// fresh returns an unused path in the private directory.
func (ps *places) fresh() string {
	ps.names++
	return filepath.Join(ps.dir, strconv.Itoa(ps.names))
}

// addSystem places what every command has, etc included, but where one of the mounts takes
// the place.
func (ps *places) addSystem(etc, mounts []Mount) error {
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
	for _, m := range etc {
		if taken(m.Target) || ps.points.Unreachable(m.Target) {
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
	if err := ps.sources.lock(ctx, mounts); err != nil {
		return err
	}
	for _, m := range mounts {
		if err := ps.add(ctx, m); err != nil {
			return fmt.Errorf("mount on %s: %w", m.Target, err)
		}
	}
	return nil
}

// Opened reports whether the source of a mount is /proc/self/fd/N, a descriptor of this
// process.
func Opened(source string) bool { return strings.HasPrefix(source, "/proc/self/fd/") }

// realSource returns the path of a source without links in it.
func realSource(source string) (string, error) {
	if !Opened(source) {
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
	case Secret:
		pl.secret = true
		file := ps.fresh()
		if err := makeFile(file, m.Content, 0o600); err != nil {
			return err
		}
		if err := os.Lchown(file, int(m.UID), int(m.GID)); err != nil {
			return err
		}
		if err := os.Chmod(file, fs.FileMode(m.Mode&0o777)); err != nil {
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
		if err := ps.sources.copyTree(ctx, m.Source, copied); err != nil {
			return err
		}
		return ps.put(copied, pl)
	}
	return ps.lend(ctx, m.Source, pl)
}

// lend places a source itself, so that what is written to it stays.
func (ps *places) lend(ctx context.Context, source string, pl *place) (err error) {
	moved := ps.fresh()
	pl.source = source
	if pl.copied, err = ps.sources.take(ctx, source, moved); err != nil {
		return err
	}
	err = ps.put(moved, pl)
	if err != nil && !pl.copied {
		err = errors.Join(err, untake(source, moved))
	}
	return err
}

// put moves what is at the path into the root file system, and what is there out of
// the way.
func (ps *places) put(from string, pl *place) (err error) {
	if pl.info, err = os.Lstat(from); err != nil {
		return err
	}
	resolved, err := ps.points.Resolve(pl.target)
	if err != nil {
		return err
	}
	pl.resolved = strings.TrimPrefix(resolved, "/")
	made, err := ps.points.Make(resolved, pl.info.IsDir())
	if err != nil {
		return err
	}
	there, err := ps.points.Root.Lstat(pl.resolved)
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
	if pl.parent, err = ps.points.Root.Open(dir); err != nil {
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
	return ps.points.Change(pl.parent, func() error {
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
