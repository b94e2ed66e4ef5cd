package layertar

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"

	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// A Tree is a directory as part of an archive.
type Tree struct {
	Name   string        // of the directory that holds it there; "" puts it at the top
	Root   string        // its place on this disk
	Owners owners.Keeper // how it has owners; see package owners
}

// WriteLayer writes the tar of the layer t in overlay format, over the layers lower, to w.
func WriteLayer(ctx context.Context, w io.Writer, t Tree, lower *layers.Stack, clock Clock) error {
	return newWalker(lower, clock).writeTrees(ctx, w, t)
}

// WriteTrees writes a tar of whole trees, one after the other, to w.
func WriteTrees(ctx context.Context, w io.Writer, trees []Tree, clock Clock) error {
	return newWalker(nil, clock).writeTrees(ctx, w, trees...)
}

// walker writes a directory tree as a tar.
type walker struct {
	tw     *tar.Writer
	at     *descent.Path // where the walker is
	buf    []byte
	links  map[file.Inode]string // first names of files with several
	lower  *layers.Stack         // of a snapshot; nil if the tree isn't in overlay format
	owners owners.Keeper         // of the tree being written
	clock  Clock
}

// frame is a directory on the way from the root to where the walker is.
type frame struct {
	parent *frame
	header *tar.Header // nil once it is written, and for the root
	path   string
	lower  layers.Dir // what it hides or merges with
}

// writeSize is how many bytes of a tar are written at once.
const writeSize = 256 << 10

// newWalker makes a walker for a layer against the layers lower, or for a whole
// tree if that is nil. clock turns the modification times on the disk into those
// in the tar.
func newWalker(lower *layers.Stack, clock Clock) *walker {
	return &walker{buf: make([]byte, file.BufferSize), links: map[file.Inode]string{}, lower: lower, clock: clock}
}

// writeTrees writes what is below the roots of the trees to w.
func (k *walker) writeTrees(ctx context.Context, w io.Writer, trees ...Tree) error {
	bw := bufio.NewWriterSize(w, writeSize)
	k.tw = tar.NewWriter(bw)
	for _, t := range trees {
		if err := k.tree(ctx, t); err != nil {
			return err
		}
	}
	if err := k.tw.Close(); err != nil {
		return err
	}
	return bw.Flush()
}

func (k *walker) tree(ctx context.Context, t Tree) error {
	f, err := os.Open(t.Root)
	if err != nil {
		return err
	}
	defer f.Close()
	k.owners = t.Owners
	k.at = descent.From(int(f.Fd()))
	defer k.at.Close()
	fr := &frame{path: t.Name}
	if t.Name != "" {
		clear(k.links) // none leads from one tree to another
		if err := k.write(k.header(t.Name+"/", tar.TypeDir, file.ImplicitAttrs)); err != nil {
			return err
		}
	}
	if k.lower != nil {
		fr.lower = k.lower.Root()
		opaque, err := k.lower.Marks.IsOpaque(k.at.FD())
		if err != nil {
			return err
		}
		if opaque && fr.lower.Exists() {
			fr.lower = layers.Dir{}
			if err := k.mark(fr, layers.OpaqueName); err != nil {
				return err
			}
		}
	}
	return k.walk(ctx, fr)
}

// walk writes the entries of fr, which is where the walker is.
func (k *walker) walk(ctx context.Context, fr *frame) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	names, err := descent.Names(k.at.FD())
	if err != nil {
		return fmt.Errorf("read directory %q: %w", relpath.Brief(fr.path), err)
	}
	var removed map[string]bool
	if k.lower != nil {
		names, removed = k.lower.Marks.Split(names)
	} else {
		slices.Sort(names)
	}
	for _, name := range names {
		if removed[name] {
			if fr.lower.Exists() {
				if err := k.mark(fr, layers.WhiteoutPrefix+name); err != nil {
					return fmt.Errorf("archive %q: %w", relpath.Brief(relpath.Join(fr.path, name)), err)
				}
			}
			continue
		}
		var st unix.Stat_t
		err := k.owners.Fstatat(k.at.FD(), name, &st)
		switch {
		case err != nil:
			err = fmt.Errorf("stat: %w", err)
		case k.lower != nil && layers.IsWhiteout(k.at.FD(), name, &st):
			if fr.lower.Exists() { // else there is nothing to remove
				err = k.mark(fr, layers.WhiteoutPrefix+name)
			}
		case k.lower != nil && strings.HasPrefix(name, layers.WhiteoutPrefix):
			err = ErrWhiteoutName
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			if err := k.directory(ctx, fr, name); err != nil {
				return err // names the entry already
			}
		default:
			err = k.file(ctx, fr, name, &st)
		}
		if err != nil {
			return fmt.Errorf("archive %q: %w", relpath.Brief(relpath.Join(fr.path, name)), err)
		}
	}
	return nil
}

// directory writes the directory name of parent and what is below it.
func (k *walker) directory(ctx context.Context, parent *frame, name string) error {
	fr := &frame{parent: parent, path: relpath.Join(parent.path, name)}
	err := k.at.Down(name)
	if err == nil {
		err = k.enter(fr, name)
	}
	if err != nil {
		return fmt.Errorf("archive %q: %w", relpath.Brief(fr.path), err)
	}
	if err := k.walk(ctx, fr); err != nil {
		return err
	}
	if err := k.at.Up(); err != nil {
		return fmt.Errorf("leave %q: %w", relpath.Brief(fr.path), err)
	}
	return nil
}

// enter prepares the frame fr of the open directory name. A directory of a layer
// that is as it is below, having only been copied up, is written when something
// in it is, or never.
func (k *walker) enter(fr *frame, name string) error {
	a, err := file.ReadAttrs(k.at.FD(), k.owners)
	if err != nil {
		return err
	}
	fr.header = k.header(fr.path+"/", tar.TypeDir, a)
	if err := relpath.CheckLength(fr.header.Name); err != nil {
		return err // before it is gone into: what is deep may be very deep
	}
	if k.lower == nil || !fr.parent.lower.Exists() {
		return k.flush(fr)
	}
	e, ok, err := k.lower.Lookup(fr.parent.lower, name)
	if err != nil {
		return err
	}
	if !ok || !e.Dir.Exists() {
		return k.flush(fr)
	}
	opaque, err := k.lower.Marks.IsOpaque(k.at.FD())
	if err != nil {
		return err
	}
	if opaque {
		return k.mark(fr, layers.OpaqueName)
	}
	fr.lower = e.Dir
	below, err := k.lower.Attrs(e.Dir)
	if err != nil {
		return err
	}
	// Compared as the tar has them: of two directories made later than the clock
	// allows, which is the later one depends on the speed of the machine.
	a.Mtime, below.Mtime = k.clock(a.Mtime), k.clock(below.Mtime)
	if a.Equal(below) {
		return nil
	}
	return k.flush(fr)
}

// flush writes the headers of fr and its parents that aren't yet.
func (k *walker) flush(fr *frame) error {
	if fr == nil || fr.header == nil {
		return nil
	}
	if err := k.flush(fr.parent); err != nil {
		return err
	}
	h := fr.header
	fr.header = nil
	return k.write(h)
}

// write writes the header h. What no archive is unpacked with is refused here, so that
// the step that made it is to blame and not whoever uses the image.
func (k *walker) write(h *tar.Header) error {
	if err := relpath.CheckLength(h.Name); err != nil {
		return err
	}
	return k.tw.WriteHeader(h)
}

// mark writes the empty file that is the whiteout name in fr.
func (k *walker) mark(fr *frame, name string) error {
	if err := k.flush(fr); err != nil {
		return err
	}
	return k.write(k.header(relpath.Join(fr.path, name), tar.TypeReg, file.Attrs{}))
}

// removed writes that fr has no entry name, if those below have one.
func (k *walker) removed(fr *frame, name string) error {
	if !fr.lower.Exists() {
		return nil
	}
	_, below, err := k.lower.Lookup(fr.lower, name)
	if err != nil || !below {
		return err
	}
	return k.mark(fr, layers.WhiteoutPrefix+name)
}

// file writes the entry name of fr, which isn't a directory.
func (k *walker) file(ctx context.Context, fr *frame, name string, st *unix.Stat_t) error {
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK { // exists only as long as its process
		return k.removed(fr, name)
	}
	if err := k.flush(fr); err != nil {
		return err
	}
	path := relpath.Join(fr.path, name)
	if st.Nlink > 1 {
		id := file.InodeOf(st)
		if first, ok := k.links[id]; ok {
			h := k.header(path, tar.TypeLink, file.AttrsOf(st))
			h.Linkname = first
			return k.write(h)
		}
		k.links[id] = path
	}
	if kind == unix.S_IFREG {
		return k.regular(ctx, k.at.FD(), name, path)
	}
	a, err := file.AttrsAt(k.at.FD(), name, st, k.owners)
	if err != nil {
		return err
	}
	var h *tar.Header
	switch kind {
	case unix.S_IFLNK:
		h = k.header(path, tar.TypeSymlink, a)
		if h.Linkname, err = file.ReadLink(k.at.FD(), name); err != nil {
			return fmt.Errorf("read link: %w", err)
		}
	case unix.S_IFIFO:
		h = k.header(path, tar.TypeFifo, a)
	case unix.S_IFCHR, unix.S_IFBLK:
		h = k.header(path, tar.TypeChar, a)
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return fmt.Errorf("unknown type of file %#o", kind)
	}
	return k.write(h)
}

// regular writes the file name of the directory fd as path.
func (k *walker) regular(ctx context.Context, fd int, name, path string) error {
	f, err := file.OpenRegular(fd, name, k.owners)
	if err != nil {
		return err
	}
	defer f.Close()
	h := k.header(path, tar.TypeReg, f.Attrs)
	h.Size = f.Size
	if err := k.write(h); err != nil {
		return err
	}
	return f.CopyTo(ctx, k.tw, k.buf)
}

// header returns a header of the given type, in the PAX format only if ustar can't
// hold it: then its bytes depend on nothing but the file.
func (k *walker) header(path string, kind byte, a file.Attrs) *tar.Header {
	mtime := k.clock(a.Mtime)
	h := &tar.Header{
		Typeflag: kind,
		Name:     path,
		Mode:     int64(a.Mode),
		Uid:      a.UID,
		Gid:      a.GID,
		ModTime:  time.Unix(mtime.Unix()),
	}
	if mtime.Nsec != 0 {
		h.Format = tar.FormatPAX // otherwise the package rounds to seconds
	}
	if k.lower != nil {
		a = a.Layered()
	}
	for name, value := range a.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string, len(a.Xattrs))
		}
		h.PAXRecords[xattrRecord+name] = value
	}
	return h
}
