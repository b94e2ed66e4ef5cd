package filecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// CopyTo copies the selection to dest, a path inside the directory root: links
// on the way are followed as if root were "/". What is copied goes there one
// source after the other, as if each were copied by itself. See the table in the
// package documentation for what becomes of what is there already. The umask has
// no influence. After an error, what was copied remains.
func (s *Selection) CopyTo(ctx context.Context, root, dest string, o Options) error {
	fd, err := openRoot(root)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	content := &contentCopier{}
	for i := 0; i < len(s.sources); {
		n, err := s.copyNext(ctx, target{root, fd, dest}, i, &o, content)
		if err != nil {
			return fmt.Errorf("copy %q to %q: %w", s.of.Path, dest, err)
		}
		i += n
	}
	return nil
}

// target is where a copy goes.
type target struct {
	root string
	fd   int // of root
	dest string
}

// copyNext copies the i-th source, and those behind it that can be copied side
// by side with it. It returns how many that were.
func (s *Selection) copyNext(ctx context.Context, to target, i int, o *Options, content *contentCopier) (int, error) {
	run := s.sources[i : i+1]
	if done, err := s.unpack(ctx, to, run[0], o); done || err != nil {
		return 1, err
	}
	at, err := locate(to.fd, to.dest, o.maker())
	if err != nil {
		return 0, err
	}
	defer at.close()
	if endsInDir(to.dest) {
		if err := at.enter(o.maker()); err != nil {
			return 0, err
		}
	}
	// A link to the destination may be replaced by the first file.
	if at.name == "" && !at.linked && o.Unpack == nil && !isDir(run[0].node.mode) {
		run = filesAlongside(s.sources[i:])
	}
	c := &copier{sel: s, opts: o, content: content, leaders: make(map[inode]leader)}
	return len(run), c.copy(ctx, run, at)
}

// unpack unpacks src if it is an archive to unpack. Directories made for it have
// nothing of Options.Mode.
func (s *Selection) unpack(ctx context.Context, to target, src *source, o *Options) (bool, error) {
	if o.Unpack == nil || !isRegular(src.node.mode) {
		return false, nil
	}
	dir, err := s.tree.enterSource(src)
	if err != nil {
		return false, err
	}
	defer closeFD(dir)
	fd, _, err := openFile(dir, src.node)
	if err != nil {
		return false, fmt.Errorf("%q: %w", src.rel, err)
	}
	f := os.NewFile(uintptr(fd), src.rel)
	defer f.Close()
	header := make([]byte, min(src.node.size, HeaderSize))
	if n, err := io.ReadFull(f, header); err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read %q (%d bytes): %w", src.rel, n, err)
	}
	if !o.Unpack.IsArchive(header) {
		return false, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	m := maker{mode: 0o755, owner: o.Owner, owners: o.Owners, reveal: o.reveal}
	at, err := locate(to.fd, to.dest, m)
	if err != nil {
		return false, err
	}
	defer at.close()
	if err := at.enter(m); err != nil {
		return false, err
	}
	if err := o.Unpack.Extract(ctx, to.root, at.path, f); err != nil {
		return false, fmt.Errorf("unpack: %w", err)
	}
	if _, err = sameFile(fd, src.node); err != nil {
		return false, fmt.Errorf("%q: %w", src.rel, err)
	}
	return true, nil
}

// copy copies a run of sources to the place: one directory's contents, or files
// of one directory.
func (c *copier) copy(ctx context.Context, run []*source, at *place) error {
	first := run[0]
	whole := isDir(first.node.mode)
	itself := whole && c.sel.of.Itself && at.name != ""
	if whole {
		if err := at.enter(c.opts.maker()); err != nil {
			return err
		}
	}
	src, err := c.sel.tree.enterSource(first)
	if err != nil {
		return err
	}
	dst, err := openat(at.fd, ".", openNode)
	if err != nil {
		closeFD(src)
		return err
	}
	c.base = at.fd
	p := &pair{src: src, dst: dst, from: first.rel, to: at.path}
	var items []item
	if whole {
		c.linking = true
		items = itemsOf(first.node.children)
		p.finish = func() error { return c.finish(p, first, itself) }
	} else {
		p.from = path.Dir(first.rel)
		p.to = path.Dir(at.path)
		for _, f := range run {
			items = append(items, item{node: f.node, as: f.name})
		}
		if at.name != "" {
			items[0].as = at.name
		} else {
			p.to = at.path
		}
	}
	return withWorkers(ctx, func(ctx context.Context, g *errgroup.Group) error {
		c.group = g
		return c.dir(ctx, p, "", items)
	})
}

// finish gives the directory that the contents of src went to its metadata. It
// stays as it is but for the time, unless the directory itself was copied there:
// BuildKit gives it the time of the source. The root of a tree has no time that anybody
// has set.
func (c *copier) finish(p *pair, src *source, itself bool) error {
	if itself {
		if err := c.metadata(c.base, p.src, src.node); err != nil {
			return err
		}
	}
	if src.rel == "" {
		return nil
	}
	return setTime(c.base, ".", src.node.mtime)
}

// dir copies items, which are in the source directory of p, to the other one.
// It takes the descriptors of p over. rel is the path of the latter below
// c.base.
func (c *copier) dir(ctx context.Context, p *pair, rel string, items []item) (err error) {
	here := newHeld(func() (err error) {
		if p.finish != nil && ctx.Err() == nil {
			err = p.finish()
		}
		closeFD(p.src)
		closeFD(p.dst)
		if err != nil {
			return fmt.Errorf("set metadata of %q: %w", p.to, err)
		}
		return nil
	})
	defer here.release(&err)
	if err := ctx.Err(); err != nil {
		return err
	}
	var plain []item
	for _, it := range items {
		if err := c.opts.reveal(p.to, it.as); err != nil {
			return err
		}
	}
	for _, it := range items {
		switch {
		case isDir(it.mode):
		case c.linking && it.manyLinks && c.sel.names[it.inode()] > 1:
			if err := c.linked(ctx, p, rel, it); err != nil {
				return err
			}
		default:
			plain = append(plain, it)
		}
	}
	for chunk := range chunks(plain, func(it item) int64 { return it.size }) {
		here.retain()
		c.group.Go(func() (err error) {
			defer here.release(&err)
			return c.files(ctx, p, chunk)
		})
	}
	for _, it := range items {
		if isDir(it.mode) {
			if err := c.subdir(ctx, p, rel, it); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *copier) files(ctx context.Context, p *pair, items []item) error {
	for _, it := range items {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.file(ctx, p, it); err != nil {
			return err
		}
	}
	return nil
}

// subdir copies the directory it, which gets the metadata of the source even if
// it exists. One that is only the parent of what is copied gets them when it is
// made, and of them nothing but the mode if it exists.
func (c *copier) subdir(ctx context.Context, p *pair, rel string, it item) error {
	from, to := path.Join(p.from, it.name), path.Join(p.to, it.as)
	src, err := enter(p.src, it.node, from)
	if err != nil {
		return err
	}
	dst, made, err := makeOrOpen(p.dst, it.as)
	if err != nil {
		closeFD(src)
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return fmt.Errorf("cannot copy directory %q to non-directory %q", from, to)
		}
		return fmt.Errorf("make directory %q: %w", to, err)
	}
	sub := &pair{src: src, dst: dst, from: from, to: to}
	sub.finish = func() error {
		if it.parentOnly && !made {
			return c.opts.Owners.Fchmod(dst, it.mode)
		}
		if err := c.metadata(dst, src, it.node); err != nil || it.parentOnly {
			return err
		}
		return setTime(dst, ".", it.mtime)
	}
	return c.dir(ctx, sub, path.Join(rel, it.as), itemsOf(it.children))
}

// makeOrOpen opens the directory name in dir and reports whether it made it. A
// new one is accessible for the process alone until it gets its metadata.
func makeOrOpen(dir int, name string) (fd int, made bool, err error) {
	err = retry(func() error { return unix.Mkdirat(dir, name, 0o700) })
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, false, err
	}
	made = err == nil
	fd, err = openat(dir, name, openDir)
	return fd, made, err
}
