package snapshot

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"golang.org/x/sys/unix"
)

// An underlay is what lies below an active snapshot of a store that indexes. Its root
// is the layer itself; what a step has to find there is put there by reveal and taken
// away again by settle, unless the step changed it.
//
// What was put there is told from what the step made by a mark: of a directory an
// extended attribute, of anything else a modification time that no file has.
type underlay struct {
	directory

	store *Store
	below *node
	id    string // of the snapshot below, "" for none
	file  *os.File
	fd    int // of file
	mark  unix.Timespec

	mu    sync.Mutex
	shown map[string]*node // what reveal has looked at, by path
}

// shownXattr marks a directory that was put there. It is one of owners' names, and so
// in no archive.
const shownXattr = "user.bob.below"

// prepareOver is Prepare for a store that indexes: nothing is mounted.
func (s *Store) prepareOver(ctx context.Context, parent *Snapshot) (*Active, error) {
	below, err := s.nodes(parentID(parent))
	if err != nil {
		return nil, err
	}
	u := &underlay{store: s, below: below, id: parentID(parent), shown: map[string]*node{}}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	u.mark = unix.Timespec{Sec: -1 << 30, Nsec: int64(binary.LittleEndian.Uint32(random[:]) % 1e9)}
	m, err := s.mount(ctx, []string{"fs"}, func(path string) (fileSystem, error) {
		u.directory = directory(filepath.Join(path, "fs"))
		file, err := os.Open(u.root())
		if err != nil {
			return nil, err
		}
		u.file, u.fd = file, int(file.Fd())
		if err := below.Apply(u.fd, true, s.Owners()); err != nil {
			return nil, errors.Join(&os.PathError{Op: "prepare", Path: u.root(), Err: err}, file.Close())
		}
		return u, nil
	})
	if err != nil {
		return nil, err
	}
	return &Active{mounted: m, parent: u.id, underlay: u}, nil
}

// directory is a fileSystem that is no more than that.
type directory string

func (d directory) root() string      { return string(d) }
func (directory) settle(string) error { return errFinished } // only what is active is committed
func (directory) kept(*Snapshot)      {}
func (directory) end() error          { return nil }

func (u *underlay) kept(*Snapshot) { _ = u.file.Close() } // nothing was written to it

func (u *underlay) end() error { return u.file.Close() }

// Reveal returns a function that has what the snapshots below have at a path, and at
// those above it, appear below Root. Whoever writes there calls it for every name
// before looking at that. The path leads from the root through no link. Files have no
// content. It is nil where all is there.
func (a *Active) Reveal() func(path string) error {
	if a.underlay == nil {
		return nil
	}
	return a.underlay.reveal
}

// ShowFile has the regular file that path leads to, if there is one, appear below
// Root with its content.
func (a *Active) ShowFile(ctx context.Context, path string) error {
	if a.underlay == nil {
		return nil
	}
	if err := a.underlay.showFile(ctx, path); err != nil {
		return fmt.Errorf("find %s: %w", path, err)
	}
	return nil
}

// Show has what lies below at base in the directory at the path dir appear.
func (u *underlay) Show(dir, base string) error { return u.reveal(relpath.Join(dir, base)) }

// CopyUp is Show of what gets another name: a file comes with all that it has.
func (u *underlay) CopyUp(ctx context.Context, dir, base string) error {
	if err := u.Show(dir, base); err != nil {
		return err
	}
	if err := u.copyUp(ctx, dir, base); err != nil {
		return fmt.Errorf("copy %q: %w", relpath.Join(dir, base), err)
	}
	return nil
}

func (u *underlay) reveal(path string) error {
	name, err := relpath.Clean(path)
	if err != nil || name == "" {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.show(name); err != nil {
		return fmt.Errorf("reveal %q: %w", path, err)
	}
	return nil
}

// show is reveal of a clean name.
func (u *underlay) show(name string) error {
	if _, done := u.shown[name]; done || name == "" {
		return nil
	}
	parent, base := relpath.Split(name)
	if err := u.show(parent); err != nil {
		return err
	}
	n := u.below.at(name)
	u.shown[name] = n
	if n == nil {
		return nil
	}
	p, through, err := u.open(parent)
	if err != nil || !through {
		return err
	}
	defer unix.Close(p)
	var st unix.Stat_t
	if err := unix.Fstatat(p, base, &st, unix.AT_SYMLINK_NOFOLLOW); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return keepingTime(p, func() error { return u.put(p, base, n) })
}

// open opens the directory at the path. through says whether what lies below shows
// through it, which it doesn't if a step made it, or something else in its place: then
// there is no descriptor either.
func (u *underlay) open(path string) (fd int, through bool, err error) {
	if fd, err = unix.Openat(u.fd, ".", file.Directory, 0); err != nil || path == "" {
		return fd, true, err
	}
	for element := range strings.SplitSeq(path, "/") {
		next, err := unix.Openat(fd, element, file.Directory, 0)
		unix.Close(fd)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return -1, false, nil
		}
		if err != nil {
			return -1, false, err
		}
		fd = next
		if _, err := unix.Fgetxattr(fd, shownXattr, nil); err != nil {
			unix.Close(fd)
			if errors.Is(err, unix.ENODATA) {
				err = nil
			}
			return -1, false, err
		}
	}
	return fd, true, nil
}

// keepingTime calls f, which changes the directory fd, and gives that its time again.
func keepingTime(fd int, f func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if err := f(); err != nil {
		return err
	}
	return file.SetTime(fd, st.Mtim)
}

// put makes base, like n, in the directory p.
func (u *underlay) put(p int, base string, n *node) error {
	var err error
	switch n.kind {
	case unix.S_IFDIR:
		return u.putDirectory(p, base, n)
	case unix.S_IFLNK:
		err = unix.Symlinkat(n.link, p, base)
	default: // no matter which: it can only be replaced
		err = unix.Mknodat(p, base, unix.S_IFREG|0o600, 0)
	}
	if err != nil {
		return err
	}
	return u.stamp(p, base)
}

// stamp marks base in the directory p, which isn't a directory.
func (u *underlay) stamp(p int, base string) error {
	return unix.UtimesNanoAt(p, base, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, u.mark}, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *underlay) putDirectory(p int, base string, n *node) error {
	if err := unix.Mkdirat(p, base, 0o700); err != nil {
		return err
	}
	fd, err := unix.Openat(p, base, file.Directory, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fsetxattr(fd, shownXattr, []byte("y"), 0); err != nil {
		return err
	}
	return n.Apply(fd, true, u.store.Owners())
}

// showFile is ShowFile.
func (u *underlay) showFile(ctx context.Context, path string) error {
	at := &underlayPlace{underlay: u}
	err := pathwalk.New(pathwalk.MaxLinks).Along(path, at)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	return u.fill(ctx, at.Path)
}

// underlayPlace is a directory above an underlay that a walk is in. What the walk meets
// appears there.
type underlayPlace struct {
	pathwalk.Position

	underlay *underlay
}

func (p *underlayPlace) Down(name string, _ *pathwalk.Walk) (target string, link bool, err error) {
	path := p.Join(name)
	if err := p.underlay.reveal(path); err != nil {
		return "", false, err
	}
	// No link is on the way: it is the way that was walked.
	target, err = os.Readlink(filepath.Join(file.Path(p.underlay.fd, "."), path))
	if errors.Is(err, unix.EINVAL) {
		p.Path = path
		return "", false, nil
	}
	return target, true, err
}

// fill gives the regular file at the path, if it was put there, its content.
func (u *underlay) fill(ctx context.Context, path string) error {
	parent, base := relpath.Split(path)
	p, through, err := u.open(parent)
	if err != nil || !through {
		return err
	}
	defer unix.Close(p)
	if n := u.below.at(path); n != nil && n.kind == unix.S_IFREG && u.stamped(p, base) {
		return u.write(ctx, p, path, n, func(int) error { return u.stamp(p, base) })
	}
	return nil
}

// copyUp makes what was put at base in the directory at the path a file of the step.
func (u *underlay) copyUp(ctx context.Context, path, base string) error {
	p, through, err := u.open(path)
	if err != nil || !through {
		return err
	}
	defer unix.Close(p)
	n := u.below.at(relpath.Join(path, base))
	switch {
	case n == nil || !u.stamped(p, base):
		return nil
	case n.kind == unix.S_IFREG:
		return u.write(ctx, p, relpath.Join(path, base), n, func(fd int) error { return n.Apply(fd, true, u.store.Owners()) })
	case n.kind == unix.S_IFLNK:
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, n.Mtime}
		if err := unix.UtimesNanoAt(p, base, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return u.store.Owners().Fchownat(p, base, n.UID, n.GID)
	}
	return fmt.Errorf("another name for a file of type %#o takes a sandbox: %w", n.kind, unix.ENOTSUP)
}

// stamped reports whether base in the directory p was put there.
func (u *underlay) stamped(p int, base string) bool {
	var st unix.Stat_t
	return unix.Fstatat(p, base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mtim == u.mark
}

// write writes the content of the file n at the path, in the directory p, and then
// calls finish.
func (u *underlay) write(ctx context.Context, p int, path string, n *node, finish func(fd int) error) (err error) {
	from, err := u.content(ctx, path, n)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	_, base := relpath.Split(path)
	fd, err := unix.Openat(p, base, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), base)
	defer func() { err = errors.Join(err, to.Close()) }()
	if _, err := io.Copy(to, &cancellable{ctx, from}); err != nil {
		return err
	}
	return finish(fd)
}

// content opens what the regular file n at the path holds.
func (u *underlay) content(ctx context.Context, path string, n *node) (io.ReadCloser, error) {
	switch {
	case n.disk != "":
		return descent.OpenFile(n.disk)
	case n.data != nil:
		return io.NopCloser(bytes.NewReader(n.data)), nil
	}
	sn, err := u.store.Snapshot(u.id)
	if err != nil {
		return nil, err
	}
	v, err := u.store.View(ctx, sn)
	if err != nil {
		return nil, err
	}
	f, err := descent.OpenFile(filepath.Join(v.Root(), path))
	if closed := v.Close(); closed != nil && err == nil {
		return nil, errors.Join(closed, f.Close())
	}
	return f, err // which outlives the view
}

// settle makes the root a layer: what was put there goes, and what the step removed
// or replaced is marked. It may be called again after an error.
func (u *underlay) settle(string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	// In this order what is in a directory comes before it.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(u.shown))) {
		n := u.shown[name]
		if n == nil {
			continue
		}
		if err := u.settleEntry(name, n); err != nil {
			return fmt.Errorf("settle %q: %w", name, err)
		}
	}
	return nil
}

func (u *underlay) settleEntry(name string, n *node) error {
	parent, base := relpath.Split(name)
	p, through, err := u.open(parent)
	if err != nil || !through {
		return err
	}
	defer unix.Close(p)
	var st unix.Stat_t
	err = unix.Fstatat(p, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return keepingTime(p, func() error { return u.store.marks.Whiteout(p, base) })
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		if !u.stamped(p, base) {
			return nil
		}
		return keepingTime(p, func() error { return unix.Unlinkat(p, base, 0) })
	}
	fd, err := unix.Openat(p, base, file.Directory, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = unix.Fremovexattr(fd, shownXattr)
	if errors.Is(err, unix.ENODATA) && n.isDir() {
		return u.store.marks.MakeOpaque(fd)
	}
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// viewOf is View for a store that indexes: a tree of other names of all files.
func (s *Store) viewOf(ctx context.Context, sn *Snapshot) (*View, error) {
	var layers []string
	if sn != nil {
		full, err := s.unpacked(ctx, sn)
		if err != nil {
			return nil, err
		}
		layers = full.layers
	}
	m, err := s.mount(ctx, []string{"fs"}, func(path string) (fileSystem, error) {
		d := directory(filepath.Join(path, "fs"))
		return d, s.link(ctx, layers, d.root())
	})
	if err != nil {
		return nil, err
	}
	return &View{m}, nil
}

// link fills the directory root with other names of all files of the layers in dirs.
func (s *Store) link(ctx context.Context, dirs []string, root string) error {
	st := layers.New(dirs, s.Owners(), s.marks)
	defer st.Close()
	if len(dirs) == 0 {
		return file.CopyAttrs(filepath.Join(s.own("empty"), emptyDirs[0]), root, s.Owners())
	}
	fd, err := unix.Open(root, file.Directory, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd)
	to := descent.From(fd)
	defer to.Close()
	return st.LinkInto(ctx, st.Root(), to)
}
