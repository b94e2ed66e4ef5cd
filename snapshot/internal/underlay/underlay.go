// Package underlay lets what lies below a step appear in a directory as far as the step
// looks at it, where nothing can be mounted and nothing is to be copied.
package underlay

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

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/internal/tree"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"golang.org/x/sys/unix"
)

// An Underlay is what lies below a step that works in a directory. The directory becomes
// the layer itself. Reveal puts into it what the step has to find there, and Settle takes
// that away again unless the step has changed it.
//
// What was put there is told from what the step made by a mark: of a directory an
// extended attribute, of anything else a modification time that no file has. The methods
// may be called concurrently.
type Underlay struct {
	root   string
	below  *tree.Node
	owners owners.Keeper
	marks  layers.Marks
	open   Opener

	file *os.File
	fd   int // of file
	mark unix.Timespec

	mu    sync.Mutex
	shown map[string]*tree.Node // what reveal has looked at, by path
}

// An Opener opens the regular file below at the path, for those that are neither in memory
// nor on the disk. The caller closes it.
type Opener func(ctx context.Context, path string) (io.ReadCloser, error)

// New returns the tree below as what lies below the directory root, which is empty. It
// gives root the attributes of the tree's own. Files in root have owners as the keeper
// says, and removed ones the marks. The caller calls End, or Settle and Kept.
func New(root string, below *tree.Node, keeper owners.Keeper, marks layers.Marks, open Opener) (*Underlay, error) {
	u := &Underlay{root: root, below: below, owners: keeper, marks: marks, open: open, shown: map[string]*tree.Node{}}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	u.mark = unix.Timespec{Sec: -1 << 30, Nsec: int64(binary.LittleEndian.Uint32(random[:]) % 1e9)}
	var err error
	if u.file, err = os.Open(root); err != nil {
		return nil, err
	}
	u.fd = int(u.file.Fd())
	if err := below.Apply(u.fd, true, keeper); err != nil {
		return nil, errors.Join(&os.PathError{Op: "prepare", Path: root, Err: err}, u.file.Close())
	}
	return u, nil
}

// Root returns the path of the directory.
func (u *Underlay) Root() string { return u.root }

// shownXattr marks a directory that was put there. It is one of owners' names, and so
// in no archive.
const shownXattr = "user.bob.below"

// Kept ends the work in the directory, which is a layer now.
func (u *Underlay) Kept(string) { _ = u.file.Close() } // nothing was written to it

// End ends the work in the directory.
func (u *Underlay) End() error { return u.file.Close() }

// Show has what lies below at base in the directory at the path dir appear.
func (u *Underlay) Show(dir, base string) error { return u.Reveal(relpath.Join(dir, base)) }

// CopyUp is Show of what gets another name: a file comes with all that it has.
func (u *Underlay) CopyUp(ctx context.Context, dir, base string) error {
	if err := u.Show(dir, base); err != nil {
		return err
	}
	if err := u.copyUp(ctx, dir, base); err != nil {
		return fmt.Errorf("copy %q: %w", relpath.Join(dir, base), err)
	}
	return nil
}

// Reveal has what lies below at a path, and at those above it, appear. The path leads from
// the root through no link. Files have no content.
func (u *Underlay) Reveal(path string) error {
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
func (u *Underlay) show(name string) error {
	if _, done := u.shown[name]; done || name == "" {
		return nil
	}
	parent, base := relpath.Split(name)
	if err := u.show(parent); err != nil {
		return err
	}
	n := u.below.At(name)
	u.shown[name] = n
	if n == nil {
		return nil
	}
	p, through, err := u.enter(parent)
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

// enter opens the directory at the path. through says whether what lies below shows
// through it, which it doesn't if a step made it, or something else in its place: then
// there is no descriptor either.
func (u *Underlay) enter(path string) (fd int, through bool, err error) {
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
func (u *Underlay) put(p int, base string, n *tree.Node) error {
	var err error
	switch n.Kind {
	case unix.S_IFDIR:
		return u.putDirectory(p, base, n)
	case unix.S_IFLNK:
		err = unix.Symlinkat(n.Link, p, base)
	default: // no matter which: it can only be replaced
		err = unix.Mknodat(p, base, unix.S_IFREG|0o600, 0)
	}
	if err != nil {
		return err
	}
	return u.stamp(p, base)
}

// stamp marks base in the directory p, which isn't a directory.
func (u *Underlay) stamp(p int, base string) error {
	return unix.UtimesNanoAt(p, base, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, u.mark}, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *Underlay) putDirectory(p int, base string, n *tree.Node) error {
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
	return n.Apply(fd, true, u.owners)
}

// ShowFile has the regular file that path leads to, if there is one, appear with its
// content.
func (u *Underlay) ShowFile(ctx context.Context, path string) error {
	at := &place{underlay: u}
	err := pathwalk.New(pathwalk.MaxLinks).Along(path, at)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	return u.fill(ctx, at.Path)
}

// place is a directory above an underlay that a walk is in. What the walk meets
// appears there.
type place struct {
	pathwalk.Position

	underlay *Underlay
}

func (p *place) Down(name string, _ *pathwalk.Walk) (target string, link bool, err error) {
	path := p.Join(name)
	if err := p.underlay.Reveal(path); err != nil {
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
func (u *Underlay) fill(ctx context.Context, path string) error {
	parent, base := relpath.Split(path)
	p, through, err := u.enter(parent)
	if err != nil || !through {
		return err
	}
	defer unix.Close(p)
	if n := u.below.At(path); n != nil && n.Kind == unix.S_IFREG && u.stamped(p, base) {
		return u.write(ctx, p, path, n, func(int) error { return u.stamp(p, base) })
	}
	return nil
}

// copyUp makes what was put at base in the directory at the path a file of the step.
func (u *Underlay) copyUp(ctx context.Context, path, base string) error {
	p, through, err := u.enter(path)
	if err != nil || !through {
		return err
	}
	defer unix.Close(p)
	n := u.below.At(relpath.Join(path, base))
	switch {
	case n == nil || !u.stamped(p, base):
		return nil
	case n.Kind == unix.S_IFREG:
		return u.write(ctx, p, relpath.Join(path, base), n, func(fd int) error { return n.Apply(fd, true, u.owners) })
	case n.Kind == unix.S_IFLNK:
		times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, n.Mtime}
		if err := unix.UtimesNanoAt(p, base, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return u.owners.Fchownat(p, base, n.UID, n.GID)
	}
	return fmt.Errorf("another name for a file of type %#o takes a sandbox: %w", n.Kind, unix.ENOTSUP)
}

// stamped reports whether base in the directory p was put there.
func (u *Underlay) stamped(p int, base string) bool {
	var st unix.Stat_t
	return unix.Fstatat(p, base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mtim == u.mark
}

// write writes the content of the file n at the path, in the directory p, and then
// calls finish.
func (u *Underlay) write(ctx context.Context, p int, path string, n *tree.Node, finish func(fd int) error) (err error) {
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
	if _, err := io.Copy(to, bounded.Reader(ctx, from, bounded.NoLimit)); err != nil {
		return err
	}
	return finish(fd)
}

// content opens what the regular file n at the path holds.
func (u *Underlay) content(ctx context.Context, path string, n *tree.Node) (io.ReadCloser, error) {
	switch {
	case n.Disk != "":
		return descent.OpenFile(n.Disk)
	case n.Data != nil:
		return io.NopCloser(bytes.NewReader(n.Data)), nil
	}
	return u.open(ctx, path)
}

// Settle makes the root a layer: it takes away what was put there, and marks what the step
// removed or replaced. It may be called again after an error.
func (u *Underlay) Settle(string) error {
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

func (u *Underlay) settleEntry(name string, n *tree.Node) error {
	parent, base := relpath.Split(name)
	p, through, err := u.enter(parent)
	if err != nil || !through {
		return err
	}
	defer unix.Close(p)
	var st unix.Stat_t
	err = unix.Fstatat(p, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return keepingTime(p, func() error { return u.marks.Whiteout(p, base) })
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
	if errors.Is(err, unix.ENODATA) && n.IsDir() {
		return u.marks.MakeOpaque(fd)
	}
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}
