package layertar

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/bobbuild/bob/snapshot/pathwalk"
	"golang.org/x/sys/unix"
)

// kernelLinks is how many symbolic links one path may go through where BuildKit leaves
// paths to the kernel.
const kernelLinks = 40

// ErrHidden is the error of a name below one that the same layer removes.
var ErrHidden = errors.New("a parent directory is removed by the same layer")

// A tree makes and finds directories below a root directory, and never anything
// outside. It goes one path element at a time without following links and
// resolves the links itself; each directory is looked up once and stays open.
type tree struct {
	root   *file.Dir
	at     string               // the path of root from where reveal counts
	byName map[string]*file.Dir // as asked for
	byPath map[string]*file.Dir // by their own paths
	made   func(path string)
	owners owners.Keeper
	marks  layers.Marks
	links  int  // how many links a path may go through
	asIs   bool // what a link points to isn't made
	reveal func(dir, base string) error
}

// newTree opens the tree of the directory root. made is told of each directory
// that the tree makes because it was missing; keeper knows whiteouts, and reveal is
// called before a name is looked at.
func newTree(root string, made func(path string), keeper owners.Keeper, reveal func(dir, base string) error) (*tree, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", root, err)
	}
	t := &tree{root: &file.Dir{FD: fd}, made: made, owners: keeper, reveal: reveal, links: pathwalk.MaxLinks}
	t.empty()
	return t, nil
}

// enter makes the directory d of the tree its root. From then on names lead where
// the kernel would find them: nothing is made because a link points to it.
func (t *tree) enter(d *file.Dir) error {
	fd, err := unix.Openat(d.FD, ".", file.Directory, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", d.Path, err)
	}
	t.close()
	t.root, t.at = &file.Dir{FD: fd}, d.Path
	t.links, t.asIs = kernelLinks, true
	t.empty()
	return nil
}

// show calls reveal for the entry base of p.
func (t *tree) show(p *file.Dir, base string) error { return t.reveal(t.full(p), base) }

// full returns the path of d from where reveal counts.
func (t *tree) full(d *file.Dir) string { return path.Join(t.at, d.Path) }

// forgetLinks makes the tree look anew what names lead to, because a link has gone.
func (t *tree) forgetLinks() { t.byName = map[string]*file.Dir{"": t.root} }

// forget closes the directories at and below path, which have gone.
func (t *tree) forget(path string) {
	t.forgetLinks()
	for p, d := range t.byPath {
		if p == path || strings.HasPrefix(p, path+"/") {
			unix.Close(d.FD)
			delete(t.byPath, p)
		}
	}
}

// reset forgets and closes all directories but the root.
func (t *tree) reset() {
	for _, d := range t.byPath {
		if d != t.root {
			unix.Close(d.FD)
		}
	}
	t.empty()
}

// empty makes the tree know its root alone.
func (t *tree) empty() {
	t.byName = map[string]*file.Dir{"": t.root}
	t.byPath = map[string]*file.Dir{"": t.root}
}

// trim bounds the number of open directories. Those handed out before are closed.
func (t *tree) trim() {
	if len(t.byPath) > file.MinOpen && len(t.byPath) > file.OpenShare(16) {
		t.reset()
	}
}

func (t *tree) close() {
	t.reset()
	unix.Close(t.root.FD)
}

// resolve returns the directory of the clean name, following links within the
// root. With create it makes what is missing, also where a link points to nothing.
func (t *tree) resolve(name string, create bool) (*file.Dir, error) {
	return t.resolveBy(pathwalk.New(t.links), name, create)
}

// resolveBy is resolve for the rest of a name: the links on the way to the parent count,
// unless it is known where that is.
func (t *tree) resolveBy(w *pathwalk.Walk, name string, create bool) (*file.Dir, error) {
	if d := t.byName[name]; d != nil {
		return d, nil
	}
	parent, base := relpath.Split(name)
	p, err := t.resolveBy(w, parent, create)
	if err != nil {
		return nil, err
	}
	at := &treePlace{tree: t, dir: p, create: create}
	if err := w.Along(base, at); err != nil {
		if at.linked {
			return nil, fmt.Errorf("follow link %s: %w", relpath.Join(p.Path, base), err)
		}
		return nil, err
	}
	t.byName[name] = at.dir
	return at.dir, nil
}

// treePlace is a directory of a tree that a walk is in.
type treePlace struct {
	tree   *tree
	dir    *file.Dir
	create bool // what is missing
	linked bool // a link led there
}

func (p *treePlace) Root() { p.dir = p.tree.root }

func (p *treePlace) Up() (err error) {
	parent, _ := relpath.Split(p.dir.Path)
	p.dir, err = p.tree.open(parent)
	return err
}

func (p *treePlace) Down(base string, _ *pathwalk.Walk) (target string, link bool, err error) {
	t := p.tree
	d, err := t.child(p.dir, base)
	switch {
	case errors.Is(err, unix.ENOENT) && p.create && (!p.linked || !t.asIs):
		d, err = t.make(p.dir, base)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		p.linked = true
		target, err = t.linkTarget(p.dir, base)
		return target, true, err
	}
	if err == nil {
		p.dir = d
	}
	return "", false, err
}

// make makes the directory base of p, which is missing.
func (t *tree) make(p *file.Dir, base string) (*file.Dir, error) {
	if removed, err := t.marks.Hidden(p.FD, base); removed || err != nil {
		return nil, cmp.Or(err, ErrHidden)
	}
	if err := unix.Mkdirat(p.FD, base, 0o755); err != nil {
		return nil, fmt.Errorf("make directory %s: %w", relpath.Join(p.Path, base), err)
	}
	t.made(relpath.Join(p.Path, base))
	return t.child(p, base)
}

// linkTarget returns what the entry base of p, which is no directory, holds if it is a
// link.
func (t *tree) linkTarget(p *file.Dir, base string) (string, error) {
	var st unix.Stat_t
	if err := t.owners.Fstatat(p.FD, base, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", relpath.Join(p.Path, base), err)
	}
	if layers.IsWhiteout(p.FD, base, &st) {
		return "", ErrHidden
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", fmt.Errorf("%s: %w", relpath.Join(p.Path, base), unix.ENOTDIR)
	}
	target, err := file.ReadLink(p.FD, base)
	if err != nil {
		return "", fmt.Errorf("read link %s: %w", relpath.Join(p.Path, base), err)
	}
	return target, nil
}

// child opens the entry base of p, which must be a directory itself.
func (t *tree) child(p *file.Dir, base string) (*file.Dir, error) {
	name := relpath.Join(p.Path, base)
	if d := t.byPath[name]; d != nil {
		return d, nil
	}
	if len(name) > relpath.MaxLength {
		return nil, relpath.ErrTooLong
	}
	if err := t.show(p, base); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(p.FD, base, file.Directory, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	d := &file.Dir{FD: fd, Path: name}
	t.byPath[name] = d
	return d, nil
}

// open opens the directory that is at path itself, without any link on the way.
func (t *tree) open(path string) (*file.Dir, error) {
	if d := t.byPath[path]; d != nil {
		return d, nil
	}
	parent, base := relpath.Split(path)
	p, err := t.open(parent)
	if err != nil {
		return nil, err
	}
	return t.child(p, base)
}
