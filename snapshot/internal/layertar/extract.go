package layertar

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// extractor writes the entries of a tar below a root directory. It is used once,
// by one goroutine.
type extractor struct {
	tree *tree // its root is what names are relative to
	opt  Options
	buf  []byte

	budget *bounded.Budget
	// What directories get when all is in them, by their path in the tree.
	dirs map[string]file.Attrs
	// layer says what a layer's entries left to do; nil where the tar isn't a layer.
	layer *layerWork
}

// xattrRecord begins the names of the PAX records that hold extended attributes.
const xattrRecord = "SCHILY.xattr."

func newExtractor(root string, opt Options, layer *layerWork) (*extractor, error) {
	x := &extractor{opt: opt, buf: make([]byte, file.BufferSize), dirs: map[string]file.Attrs{}, layer: layer, budget: opt.Budget}
	reveal := func(string, string) error { return nil }
	if opt.In != nil {
		reveal = opt.In.Show
	}
	t, err := newTree(root, x.madeDir, opt.Owners, reveal)
	if err != nil {
		return nil, err
	}
	if layer != nil {
		t.marks = layer.marks
	}
	x.tree = t
	return x, nil
}

// madeDir notes a directory that was made without an entry of its own.
func (x *extractor) madeDir(path string) {
	x.dirs[path] = file.ImplicitAttrs
	if x.layer != nil {
		x.layer.implicit[path] = true
	}
}

// run extracts the tar r up to its end marker, but for the attributes of
// directories.
func (x *extractor) run(ctx context.Context, r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return fmt.Errorf("read tar header: %w", err)
		}
		if err := x.budget.TarEntry(hdr); err != nil {
			return fmt.Errorf("extract %q: %w", hdr.Name, err)
		}
		x.tree.trim()
		if err := x.entry(ctx, hdr, tr); err != nil {
			return fmt.Errorf("extract %q: %w", hdr.Name, err)
		}
	}
}

func (x *extractor) entry(ctx context.Context, hdr *tar.Header, r io.Reader) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	name, err := x.name(hdr.Name)
	if err != nil {
		return err
	}
	if x.layer != nil {
		if done, err := x.layer.Take(name); done || err != nil {
			return err
		}
	}
	if name == "" {
		return x.rootEntry(hdr)
	}
	parent, base := relpath.Split(name)
	p, err := x.tree.resolve(parent, true)
	if err != nil {
		return err
	}
	if len(base) > unix.NAME_MAX {
		return unix.ENAMETOOLONG
	}
	if err := x.tree.show(p, base); err != nil {
		return err
	}
	return x.create(ctx, p, base, hdr, r)
}

// name returns a name in the archive in its shortest form. A layer may not name
// anything above its root; what is unpacked elsewhere is confined to the place it
// goes to, where ".." ends at the top.
func (x *extractor) name(name string) (string, error) {
	if x.layer == nil && len(name) <= relpath.MaxLength {
		name = path.Join("/", name)
	}
	return relpath.Clean(name)
}

// rootEntry is for an entry whose name leads to the root. A layer's sets the root's
// attributes. What is unpacked into a directory leaves that as it is, whatever "."
// is said to be; a directory "/" sets the attributes, as in BuildKit.
func (x *extractor) rootEntry(hdr *tar.Header) error {
	if x.layer == nil && path.Clean(hdr.Name) == "." {
		return nil
	}
	if hdr.Typeflag != tar.TypeDir {
		return fmt.Errorf("the root is not a directory but of type %q", hdr.Typeflag)
	}
	if x.layer != nil {
		delete(x.layer.implicit, "")
	}
	a, err := x.attrs(hdr)
	x.dirs[""] = a
	return err
}

// attrs returns what hdr says of the owner and the like, with the owner that is asked for.
func (x *extractor) attrs(hdr *tar.Header) (file.Attrs, error) {
	a, err := HeaderAttrs(hdr)
	// Where owners are recorded, the kernel may refuse what others can set.
	a.Strict = x.layer == nil && x.opt.Owners != owners.Records
	if o := x.opt.Owner; o != nil {
		a.UID, a.GID = o.UID, o.GID
	}
	if err == nil && !x.opt.NoChown {
		err = CheckOwner(a)
	}
	return a, err
}

// HeaderAttrs returns what hdr says of a file, but for its type.
func HeaderAttrs(hdr *tar.Header) (file.Attrs, error) {
	a := file.Attrs{Mode: uint32(hdr.Mode) & 0o7777, UID: hdr.Uid, GID: hdr.Gid}
	t, err := unix.TimeToTimespec(hdr.ModTime)
	if err != nil {
		return a, fmt.Errorf("modification time %v: %w", hdr.ModTime, err)
	}
	a.Mtime = t
	for k, v := range hdr.PAXRecords {
		if name, ok := strings.CutPrefix(k, xattrRecord); ok {
			if a.Xattrs == nil {
				a.Xattrs = map[string]string{}
			}
			a.Xattrs[name] = v
		}
	}
	return a, nil
}

// CheckOwner refuses an owner that no file can have.
func CheckOwner(a file.Attrs) error {
	const noID = 1<<32 - 1 // chown takes it for "unchanged"
	if a.UID < 0 || a.UID >= noID || a.GID < 0 || a.GID >= noID {
		return fmt.Errorf("owner %d:%d: %w", a.UID, a.GID, unix.EINVAL)
	}
	return nil
}

// create makes the entry base of p.
func (x *extractor) create(ctx context.Context, p *file.Dir, base string, hdr *tar.Header, r io.Reader) error {
	a, err := x.attrs(hdr)
	if err != nil {
		return err
	}
	if hdr.Typeflag == tar.TypeCont && x.layer != nil { // BuildKit's ADD refuses one
		return x.file(ctx, p, base, a, hdr.Size, r)
	}
	switch hdr.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return x.file(ctx, p, base, a, hdr.Size, r)
	case tar.TypeDir:
		return x.dir(p, base, a)
	case tar.TypeLink:
		made, err := x.link(ctx, p, base, hdr.Linkname, a)
		if err != nil || !made {
			return err
		}
		return x.setLinked(p, base, a)
	case tar.TypeSymlink:
		err = x.fresh(p, base, func() error { return unix.Symlinkat(hdr.Linkname, p.FD, base) })
	case tar.TypeFifo:
		err = x.fresh(p, base, func() error { return unix.Mknodat(p.FD, base, unix.S_IFIFO|0o600, 0) })
	case tar.TypeChar, tar.TypeBlock:
		err = x.fresh(p, base, func() error {
			return file.MakeDevice(p.FD, base, hdr.Typeflag == tar.TypeBlock, hdr.Devmajor, hdr.Devminor, x.opt.Owners)
		})
		if errors.Is(err, unix.EPERM) && x.opt.LeaveOut != nil {
			x.opt.LeaveOut(relpath.Join(p.Path, base))
			return nil
		}
	default:
		return fmt.Errorf("unsupported type of entry %q", hdr.Typeflag)
	}
	if err != nil {
		return err
	}
	return a.ApplyAt(p.FD, base, x.chown(a), hdr.Typeflag == tar.TypeSymlink, x.opt.Owners)
}

// fresh calls create, which makes the entry base of p, once more after removing
// what is in its place.
func (x *extractor) fresh(p *file.Dir, base string, create func() error) error {
	err := create()
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if err := x.remove(p, base); err != nil {
		return err
	}
	return create()
}

// remove removes the entry base of p with all that is noted about it.
func (x *extractor) remove(p *file.Dir, base string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(p.FD, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := descent.Remove(p.FD, base); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		x.forget(relpath.Join(p.Path, base))
		x.tree.forget(relpath.Join(p.Path, base))
	case unix.S_IFLNK:
		x.tree.forgetLinks()
	}
	return nil
}

// forget drops what is noted about the directory path and those below it.
func (x *extractor) forget(path string) {
	below := func(p string) bool { return p == path || strings.HasPrefix(p, path+"/") }
	maps.DeleteFunc(x.dirs, func(p string, _ file.Attrs) bool { return below(p) })
	if x.layer != nil {
		maps.DeleteFunc(x.layer.implicit, func(p string, _ bool) bool { return below(p) })
		maps.DeleteFunc(x.layer.opaqueAt, func(p string, _ bool) bool { return below(p) })
	}
}

func (x *extractor) dir(p *file.Dir, base string, a file.Attrs) error {
	path := relpath.Join(p.Path, base)
	err := unix.Mkdirat(p.FD, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(p.FD, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		err = nil
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			err = x.fresh(p, base, func() error { return unix.Mkdirat(p.FD, base, 0o700) })
		}
	}
	if err != nil {
		return err
	}
	x.dirs[path] = a
	if x.layer != nil {
		delete(x.layer.implicit, path)
	}
	return nil
}

func (x *extractor) file(ctx context.Context, p *file.Dir, base string, a file.Attrs, size int64, r io.Reader) error {
	fd := -1
	err := x.fresh(p, base, func() (err error) {
		fd, err = unix.Openat(p.FD, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := file.Fill(ctx, fd, size, r, x.buf); err != nil {
		return err
	}
	return a.Apply(fd, x.chown(a), x.opt.Owners)
}

// chown reports whether a file of attributes a must change its owner. In a layer
// no directory has its set-group-ID bit yet, so that new files belong to 0:0.
func (x *extractor) chown(a file.Attrs) bool {
	return !x.opt.NoChown && (x.layer == nil || a.UID != 0 || a.GID != 0)
}

// setLinked gives what the new hard link base of p is a name of the attributes a of the
// link's entry, as containerd and Docker do: of several entries for one file the last
// counts. A symbolic link gets the owner alone. An owner that is right already isn't set,
// for that would cost the file its capabilities.
func (x *extractor) setLinked(p *file.Dir, base string, a file.Attrs) error {
	st, err := x.stat(p, base)
	if err != nil {
		return err
	}
	symlink := st.Mode&unix.S_IFMT == unix.S_IFLNK
	if symlink {
		a.Mtime = st.Mtim
	}
	chown := !x.opt.NoChown && (a.UID != int(st.Uid) || a.GID != int(st.Gid))
	return a.ApplyAt(p.FD, base, chown, symlink, x.opt.Owners)
}

// stat returns the status of the entry base of p.
func (x *extractor) stat(p *file.Dir, base string) (st unix.Stat_t, err error) {
	if err := x.opt.Owners.Fstatat(p.FD, base, &st); err != nil {
		return st, fmt.Errorf("stat: %w", err)
	}
	return st, nil
}

// link makes the entry base of p another name of the entry target. In a layer a target
// that isn't there yet is no error: the link, whose entry has the attributes a, is made
// when the layer is settled.
func (x *extractor) link(ctx context.Context, p *file.Dir, base, target string, a file.Attrs) (made bool, err error) {
	name, err := x.name(target)
	if err != nil {
		return false, fmt.Errorf("target %q: %w", target, err)
	}
	if name == "" {
		return false, fmt.Errorf("target %q is the root", target)
	}
	if x.layer != nil {
		if err := CheckNoWhiteout(name); err != nil {
			return false, fmt.Errorf("target: %w", err)
		}
	}
	if x.opt.In != nil {
		parent, last := relpath.Split(name)
		if tp, err := x.tree.resolve(parent, false); err == nil {
			if err := x.opt.In.CopyUp(ctx, x.tree.full(tp), last); err != nil {
				return false, fmt.Errorf("target %q: %w", target, err)
			}
		}
	}
	made, err = x.linkHere(p, base, name)
	if err == nil && !made {
		if x.layer == nil {
			return false, fmt.Errorf("target %q: %w", target, unix.ENOENT)
		}
		x.layer.links = append(x.layer.links, Link{relpath.Join(p.Path, base), name, a})
	}
	return made, err
}

// linkHere is link for a target that is in the tree; found says whether it is.
func (x *extractor) linkHere(p *file.Dir, base, target string) (found bool, err error) {
	parent, last := relpath.Split(target)
	tp, err := x.tree.resolve(parent, false)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("target %q: %w", target, err)
	}
	if path := relpath.Join(p.Path, base); tp.Path == path || strings.HasPrefix(tp.Path, path+"/") {
		return false, fmt.Errorf("target %q is below the link itself", target)
	}
	var old, st unix.Stat_t
	err = unix.Fstatat(tp.FD, last, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("target %q: %w", target, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false, fmt.Errorf("target %q is a directory", target)
	}
	if x.layer == nil && tp.Path == p.Path && last == base {
		return false, nil // its own target, and what was there would have gone
	}
	err = unix.Fstatat(p.FD, base, &old, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && old.Ino == st.Ino && old.Dev == st.Dev {
		return true, nil // the same file already
	}
	err = x.fresh(p, base, func() error { return unix.Linkat(tp.FD, last, p.FD, base, 0) })
	if err != nil {
		return false, fmt.Errorf("link to %q: %w", target, err)
	}
	return true, nil
}

// finish gives the directories their attributes, inner ones first.
func (x *extractor) finish() error {
	paths := slices.Sorted(maps.Keys(x.dirs))
	for _, path := range slices.Backward(paths) {
		x.tree.trim()
		d, err := x.tree.open(path)
		if err == nil {
			err = x.dirs[path].Apply(d.FD, !x.opt.NoChown, x.opt.Owners)
		}
		if err != nil {
			return fmt.Errorf("directory %q: %w", path, err)
		}
	}
	return nil
}
