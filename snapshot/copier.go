package snapshot

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

// copier copies files from one directory to another, within or between file
// systems. One goroutine uses it at a time.
type copier struct {
	owners           owners.Keeper
	buf              []byte
	root             string        // of the tree that is copied to
	to               *descent.Path // where in it directories are made
	noClone, noRange bool          // what these file systems have refused
	// links are the places of the files with several names that were copied.
	links map[inode]place
}

// place is an entry of an open directory.
type place struct {
	dir  *dir
	base string
}

const (
	// smallFile is the size up to which a read and a write are faster than
	// copy_file_range(2).
	smallFile = 128 << 10
	// rangeSize is how much one copy_file_range(2) may take: it doesn't notice
	// that the context has ended.
	rangeSize = 64 << 20
)

func newCopier(root string, keeper owners.Keeper) *copier {
	return &copier{owners: keeper, buf: make([]byte, copySize), root: root, links: map[inode]place{}}
}

// entry makes the entry base of to, which isn't there, a copy of that of the
// directory from, which isn't a directory. A file that the copier has copied
// under another name gets one more.
func (c *copier) entry(ctx context.Context, from int, st *unix.Stat_t, to *dir, base string) error {
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := c.links[id]; ok {
			return c.linkTo(first, to, base)
		}
		c.links[id] = place{to, base}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return c.regular(ctx, from, to, base)
	}
	a := statAttrs(st)
	var err error
	if a.xattrs, err = readXattrsPath(fdPath(from, base), c.owners, st.Mode); err != nil {
		return err
	}
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFLNK:
		target, err := readlinkat(from, base)
		if err != nil {
			return fmt.Errorf("read link: %w", err)
		}
		if err := unix.Symlinkat(target, to.fd, base); err != nil {
			return fmt.Errorf("make symbolic link: %w", err)
		}
	case unix.S_IFIFO, unix.S_IFSOCK:
		if err := unix.Mknodat(to.fd, base, kind|0o600, 0); err != nil {
			return fmt.Errorf("make fifo or socket: %w", err)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		err := makeDevice(to.fd, base, kind == unix.S_IFBLK, int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), c.owners)
		if err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown type of file %#o", kind)
	}
	return a.applyAt(to.fd, base, true, st.Mode&unix.S_IFMT == unix.S_IFLNK, c.owners)
}

// linkTo gives the copy first one more name.
func (c *copier) linkTo(first place, to *dir, base string) error {
	root, err := unix.Open(c.root, dirFlags, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", c.root, err)
	}
	defer unix.Close(root)
	path := relpath.Join(first.dir.path, first.base)
	err = descent.Beneath(root, path, func(dir int, rest string) error { return unix.Linkat(dir, rest, to.fd, base, 0) })
	if err != nil {
		return fmt.Errorf("link to %q: %w", relpath.Brief(path), err)
	}
	return nil
}

func (c *copier) regular(ctx context.Context, from int, to *dir, base string) error {
	src, err := descent.Open(from, base, unix.O_NONBLOCK) // should it have become a fifo
	if err != nil {
		return err
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := c.owners.Fstat(src, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	a := statAttrs(&st)
	if a.xattrs, err = readXattrsFd(src, c.owners, st.Mode); err != nil {
		return err
	}
	dst, err := unix.Openat(to.fd, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer unix.Close(dst)
	if err := c.content(ctx, contents{fd: src, size: st.Size, sparse: st.Blocks*512 < st.Size}, dst); err != nil {
		return err
	}
	return a.apply(dst, true, c.owners)
}

// content writes what from holds to the empty file to: by sharing it where the
// file system can (FICLONE), and otherwise holes as holes.
func (c *copier) content(ctx context.Context, from contents, to int) error {
	if from.size == 0 {
		return nil
	}
	if !c.noClone {
		err := unix.IoctlFileClone(to, from.fd)
		if err == nil {
			return nil
		}
		c.noClone = !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT)
	}
	for at := int64(0); at < from.size; {
		data, end := at, from.size
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
		return os.NewSyscallError("ftruncate", unix.Ftruncate(to, from.size))
	}
	return nil
}

// span copies the bytes from at to end.
func (c *copier) span(ctx context.Context, from contents, to int, at, end int64) error {
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
	return from.copyData(ctx, descriptor(to), c.buf, at, end)
}

// makeDevice makes a block or character device.
func makeDevice(dir int, base string, block bool, major, minor int64, keeper owners.Keeper) error {
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
