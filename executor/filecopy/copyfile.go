package filecopy

import (
	"context"
	"errors"
	"fmt"
	"path"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// copier is one CopyTo.
type copier struct {
	group   *errgroup.Group
	sel     *Selection
	opts    *Options
	content *contentCopier
	base    int  // destination directory of the source being copied
	linking bool // what is copied is one directory: links in it stay links of each other
	leaders map[inode]leader
}

// leader is the first copy of a file that has several names.
type leader struct {
	dir  string // relative to copier.base
	name string
}

// item is a node and its name at the destination.
type item struct {
	*node
	as string
}

func itemsOf(nodes []*node) []item {
	items := make([]item, len(nodes))
	for i, n := range nodes {
		items[i] = item{n, n.name}
	}
	return items
}

// pair is a directory of the source and the one of the destination that it is copied to.
type pair struct {
	src, dst int
	from, to string // for messages
	finish   func() error
}

// metadata gives the open file dst the owner, the mode and the attributes of n, which is
// open as src. The order keeps them: a change of owner clears set-ID bits and
// capabilities.
func (c *copier) metadata(dst, src int, n *node) error {
	a, err := readAttributes(src, n.mode, c.sel.tree.owners)
	if err != nil {
		return err
	}
	uid, gid := c.owner(n)
	if err := c.opts.Owners.Fset(dst, int(uid), int(gid), c.mode(n)); err != nil {
		return fmt.Errorf("change owner to %d:%d and mode to %#o: %w", uid, gid, c.mode(n), err)
	}
	return a.write(dst, c.opts.Owners)
}

func (c *copier) owner(n *node) (uid, gid uint32) {
	if c.opts.Owner != nil {
		return c.opts.Owner.UID, c.opts.Owner.GID
	}
	return n.uid, n.gid
}

func (c *copier) mode(n *node) uint32 {
	return c.opts.Mode.of(n.mode)
}

// createTries bounds how often a name is cleared for a new file; more is needed
// only if something else writes there at the same time.
const createTries = 10

// replace calls create for name in dir, after removing what is there if that is
// no directory.
func replace(dir int, name string, create func() error) error {
	for range createTries {
		err := retry(create)
		if !errors.Is(err, unix.EEXIST) {
			return err
		}
		err = retry(func() error { return unix.Unlinkat(dir, name, 0) })
		if errors.Is(err, unix.EISDIR) {
			return errors.New("cannot replace a directory with a file")
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return unix.EEXIST
}

// createFile creates the file name in dir anew, accessible for the process alone.
func createFile(dir int, name string) (int, error) {
	fd := -1
	err := replace(dir, name, func() (err error) {
		fd, err = unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	return fd, err
}

// file copies one file that is no directory.
func (c *copier) file(ctx context.Context, p *pair, it item) error {
	var err error
	switch it.mode & unix.S_IFMT {
	case unix.S_IFREG:
		err = c.regular(ctx, p, it)
	case unix.S_IFLNK:
		err = c.symlink(p, it)
	case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
		err = c.special(p, it)
	default:
		err = fmt.Errorf("unknown file type %#o", it.mode&unix.S_IFMT)
	}
	if err != nil {
		return fmt.Errorf("%q to %q: %w", path.Join(p.from, it.name), path.Join(p.to, it.as), err)
	}
	return nil
}

func (c *copier) regular(ctx context.Context, p *pair, it item) error {
	src, st, err := openFile(p.src, it.node)
	if err != nil {
		return err
	}
	defer closeFD(src)
	dst, err := createFile(p.dst, it.as)
	if err != nil {
		return err
	}
	err = c.fill(ctx, dst, src, it.node, sparse(&st))
	if err == nil {
		err = setTime(p.dst, it.as, it.mtime)
	}
	if err == nil {
		_, err = sameFile(src, it.node)
	}
	if e := unix.Close(dst); err == nil && e != nil {
		err = fmt.Errorf("close: %w", e)
	}
	return err
}

// fill gives dst the content and the metadata of src.
func (c *copier) fill(ctx context.Context, dst, src int, n *node, holes bool) error {
	if err := c.content.copy(ctx, dst, src, n.size, holes); err != nil {
		return err
	}
	return c.metadata(dst, src, n)
}

func (c *copier) symlink(p *pair, it item) error {
	err := replace(p.dst, it.as, func() error { return unix.Symlinkat(it.link, p.dst, it.as) })
	if err != nil {
		return err
	}
	return c.nameMetadata(p, it)
}

// special makes a fifo or device like the one in the source, which is never
// opened.
func (c *copier) special(p *pair, it item) error {
	dev := it.rdev
	if it.mode&unix.S_IFMT == unix.S_IFIFO {
		dev = 0
	}
	err := replace(p.dst, it.as, func() error {
		return c.opts.Owners.Mknodat(p.dst, it.as, it.mode&unix.S_IFMT|0o600, dev)
	})
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("make device: %w (the kernel lets only the host's root do so)", err)
	}
	if err != nil {
		return err
	}
	return c.nameMetadata(p, it)
}

// nameMetadata gives owner, mode and time to a file that can't be opened.
func (c *copier) nameMetadata(p *pair, it item) error {
	uid, gid := c.owner(it.node)
	if err := c.opts.Owners.Fchownat(p.dst, it.as, int(uid), int(gid)); err != nil {
		return fmt.Errorf("change owner to %d:%d: %w", uid, gid, err)
	}
	if !isSymlink(it.mode) {
		// The name was made by this process a moment ago in a directory that
		// belongs to the step: there is no link to follow.
		if err := c.opts.Owners.Fchmodat(p.dst, it.as, c.mode(it.node)); err != nil {
			return fmt.Errorf("change mode: %w", err)
		}
	}
	if err := setTime(p.dst, it.as, it.mtime); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// linked copies a file that has more names in the selection: the first name is
// copied, the others become links to that copy. The walk does so itself, for
// the first copy to be there when the next name comes.
func (c *copier) linked(ctx context.Context, p *pair, rel string, it item) error {
	if first, ok := c.leaders[it.inode()]; ok && c.link(p, it, first) {
		return nil
	}
	if err := c.file(ctx, p, it); err != nil {
		return err
	}
	c.leaders[it.inode()] = leader{dir: rel, name: it.as}
	return nil
}

// link makes it a link to the first copy and reports whether that worked: the
// file system may limit their number, or the first directory may be closed to
// an unprivileged user; a copy does as well.
func (c *copier) link(p *pair, it item, first leader) bool {
	dir, err := openBeneath(c.base, first.dir, openNode)
	if err != nil {
		return false
	}
	defer closeFD(dir)
	err = replace(p.dst, it.as, func() error {
		return unix.Linkat(dir, first.name, p.dst, it.as, 0)
	})
	return err == nil
}

// WriteFile writes the content of a heredoc to dest inside the directory root,
// by the rules of CopyTo for a file called name: with mode 0644 unless o.Mode
// says otherwise, owned by o.Owner or, if nil, by the process. Its modification
// time is the present.
func WriteFile(ctx context.Context, root, dest, name string, content []byte, o Options) error {
	err := ctx.Err()
	if err == nil {
		err = writeInline(root, dest, name, content, &o)
	}
	if err != nil {
		return fmt.Errorf("copy <<%s to %q: %w", name, dest, err)
	}
	return nil
}

func writeInline(root, dest, name string, content []byte, o *Options) error {
	fd, err := openRoot(root)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	at, err := locate(fd, dest, o.maker())
	if err != nil {
		return err
	}
	defer at.close()
	if endsInDir(dest) {
		if err := at.enter(o.maker()); err != nil {
			return err
		}
	}
	name = path.Base(path.Join("/", name))
	if at.name != "" {
		name = at.name
	} else if err := o.reveal(at.path, name); err != nil {
		return err
	}
	out, err := createFile(at.fd, name)
	if err != nil {
		return err
	}
	err = writeAt(out, content, 0)
	if err == nil {
		uid, gid := o.Owner.ids()
		err = o.Owners.Fset(out, uid, gid, o.Mode.of(unix.S_IFREG|0o644))
	}
	if e := unix.Close(out); err == nil {
		err = e
	}
	return err
}
