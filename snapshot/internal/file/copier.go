package file

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/relpath"

	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// Copier copies files from one directory to another, within or between file
// systems. One goroutine uses it at a time.
type Copier struct {
	Owners           owners.Keeper
	Buf              []byte
	root             int           // of the tree that is copied to
	at               *descent.Path // where in it directories are made
	noClone, noRange bool          // what these file systems have refused
	// links are the places of the files with several names that were copied.
	links map[Inode]place
}

// place is an entry of an open directory.
type place struct {
	dir  *Dir
	base string
}

// BufferSize is the size of the pieces that content is read in, in bytes.
const BufferSize = 256 << 10

const (
	// smallFile is the size up to which a read and a write are faster than
	// copy_file_range(2).
	smallFile = 128 << 10
	// rangeSize is how much one copy_file_range(2) may take: it doesn't notice
	// that the context has ended.
	rangeSize = 64 << 20
)

// NewCopier returns a copier to the tree below root. The caller closes it.
func NewCopier(root string, keeper owners.Keeper) (*Copier, error) {
	fd, err := unix.Open(root, Directory, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	return &Copier{Owners: keeper, Buf: make([]byte, BufferSize), root: fd, at: descent.From(fd), links: map[Inode]place{}}, nil
}

// Close closes what the copier has opened.
func (c *Copier) Close() {
	c.at.Close()
	unix.Close(c.root)
}

// Top returns the root of the tree that is copied to.
func (c *Copier) Top() *Dir { return &Dir{FD: c.root} }

// InNewDirectory makes the directory name of to, where c.at is, and calls f with it.
func (c *Copier) InNewDirectory(to *Dir, name string, f func(made *Dir) error) error {
	path := relpath.Join(to.Path, name)
	if err := unix.Mkdirat(to.FD, name, 0o700); err != nil {
		return &os.PathError{Op: "mkdir", Path: relpath.Brief(path), Err: err}
	}
	if err := c.at.Down(name); err != nil {
		return fmt.Errorf("%s: %w", relpath.Brief(path), err)
	}
	if err := f(&Dir{FD: c.at.FD(), Path: path}); err != nil {
		return err
	}
	if err := c.at.Up(); err != nil {
		return fmt.Errorf("leave %s: %w", relpath.Brief(path), err)
	}
	to.FD = c.at.FD() // which may have been closed meanwhile
	return nil
}

// Entry makes the entry base of to, which isn't there, a copy of that of the
// directory from, which isn't a directory. A file that the copier has copied
// under another name gets one more.
func (c *Copier) Entry(ctx context.Context, from int, st *unix.Stat_t, to *Dir, base string) error {
	if st.Nlink > 1 {
		id := InodeOf(st)
		if first, ok := c.links[id]; ok {
			return c.linkTo(first, to, base)
		}
		c.links[id] = place{to, base}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return c.regular(ctx, from, to, base)
	}
	a, err := AttrsAt(from, base, st, c.Owners)
	if err != nil {
		return err
	}
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFLNK:
		target, err := ReadLink(from, base)
		if err != nil {
			return fmt.Errorf("read link: %w", err)
		}
		if err := unix.Symlinkat(target, to.FD, base); err != nil {
			return fmt.Errorf("make symbolic link: %w", err)
		}
	case unix.S_IFIFO, unix.S_IFSOCK:
		if err := unix.Mknodat(to.FD, base, kind|0o600, 0); err != nil {
			return fmt.Errorf("make fifo or socket: %w", err)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		err := MakeDevice(to.FD, base, kind == unix.S_IFBLK, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), c.Owners)
		if err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown type of file %#o", kind)
	}
	return a.ApplyAt(to.FD, base, true, st.Mode&unix.S_IFMT == unix.S_IFLNK, c.Owners)
}

// linkTo gives the copy first one more name.
func (c *Copier) linkTo(first place, to *Dir, base string) error {
	path := relpath.Join(first.dir.Path, first.base)
	err := descent.Beneath(c.root, path, func(dir int, rest string) error { return unix.Linkat(dir, rest, to.FD, base, 0) })
	if err != nil {
		return fmt.Errorf("link to %q: %w", relpath.Brief(path), err)
	}
	return nil
}

func (c *Copier) regular(ctx context.Context, from int, to *Dir, base string) error {
	src, err := OpenRegular(from, base, c.Owners)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := unix.Openat(to.FD, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer unix.Close(dst)
	if err := c.content(ctx, src, dst); err != nil {
		return err
	}
	return src.Apply(dst, true, c.Owners)
}

// content writes what from holds to the empty file to: by sharing it where the
// file system can (FICLONE), and otherwise holes as holes.
func (c *Copier) content(ctx context.Context, from *Regular, to int) error {
	if from.Size == 0 {
		return nil
	}
	if !c.noClone {
		err := unix.IoctlFileClone(to, from.fd)
		if err == nil {
			return nil
		}
		c.noClone = !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT)
	}
	for at := int64(0); at < from.Size; {
		data, end := at, from.Size
		if from.sparse {
			var err error
			if data, end, err = from.next(at); err != nil {
				return err
			}
		}
		if err := c.span(ctx, from, to, data, end); err != nil {
			return err
		}
		at = end
	}
	if from.sparse {
		return os.NewSyscallError("ftruncate", unix.Ftruncate(to, from.Size))
	}
	return nil
}

// span copies the bytes from at to end.
func (c *Copier) span(ctx context.Context, from *Regular, to int, at, end int64) error {
	for end-at > smallFile && !c.noRange {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		in, out := at, at
		n, err := unix.CopyFileRange(from.fd, &in, to, &out, int(min(end-at, rangeSize)), 0)
		if err != nil || n == 0 {
			c.noRange = err != nil && !errors.Is(err, unix.EINTR)
			break // reading and writing tells what is wrong
		}
		at += int64(n)
	}
	if at == end {
		return nil
	}
	if _, err := unix.Seek(to, at, unix.SEEK_SET); err != nil {
		return os.NewSyscallError("lseek", err)
	}
	return from.copyData(ctx, descriptor(to), c.Buf, at, end)
}

// MakeDevice makes a block or character device.
func MakeDevice(dir int, base string, block bool, major, minor int64, keeper owners.Keeper) error {
	mode := uint32(unix.S_IFCHR | 0o600)
	if block {
		mode = unix.S_IFBLK | 0o600
	}
	if major < 0 || minor < 0 || major > 1<<12-1 || minor > 1<<20-1 {
		return fmt.Errorf("device %d:%d: %w", major, minor, unix.EINVAL)
	}
	err := keeper.Mknodat(dir, base, mode, unix.Mkdev(uint32(major), uint32(minor)))
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("device %d:%d can't be made without real root: %w", major, minor, err)
	case errors.Is(err, unix.ENOTSUP):
		return fmt.Errorf("device %d:%d can't be recorded: the file system of the cache directory has no user attributes: put it on ext4, XFS, Btrfs or, since Linux 6.6, tmpfs: %w", major, minor, err)
	}
	return err
}
