package snapshot

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
	"golang.org/x/sys/unix"
)

// kernelLinks is how many symbolic links one path may go through where BuildKit leaves
// paths to the kernel.
const kernelLinks = 40

var errHidden = errors.New("a parent directory is removed by the same layer")

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
	t := &tree{root: &file.Dir{FD: fd}, made: made, owners: keeper, reveal: reveal, links: relpath.MaxLinks}
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
	links := 0
	return t.resolveCounted(name, create, &links)
}

func (t *tree) resolveCounted(name string, create bool, links *int) (*file.Dir, error) {
	if d := t.byName[name]; d != nil {
		return d, nil
	}
	parent, base := relpath.Split(name)
	p, err := t.resolveCounted(parent, create, links)
	if err != nil {
		return nil, err
	}
	d, err := t.step(p, base, create, links)
	if err != nil {
		return nil, err
	}
	t.byName[name] = d
	return d, nil
}

// step returns the directory that the entry base of p is or links to.
func (t *tree) step(p *file.Dir, base string, create bool, links *int) (*file.Dir, error) {
	d, err := t.child(p, base)
	switch {
	case err == nil:
		return d, nil
	case errors.Is(err, unix.ENOENT) && create:
		if removed, err := t.marks.Hidden(p.FD, base); removed || err != nil {
			return nil, cmp.Or(err, errHidden)
		}
		if err := unix.Mkdirat(p.FD, base, 0o755); err != nil {
			return nil, fmt.Errorf("make directory %s: %w", relpath.Join(p.Path, base), err)
		}
		t.made(relpath.Join(p.Path, base))
		return t.child(p, base)
	case !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP):
		return nil, err
	}
	var st unix.Stat_t
	if err := t.owners.Fstatat(p.FD, base, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", relpath.Join(p.Path, base), err)
	}
	if layers.IsWhiteout(p.FD, base, &st) {
		return nil, errHidden
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil, fmt.Errorf("%s: %w", relpath.Join(p.Path, base), unix.ENOTDIR)
	}
	return t.follow(p, base, create, links)
}

// follow returns the directory that the symbolic link base of p points to.
func (t *tree) follow(p *file.Dir, base string, create bool, links *int) (*file.Dir, error) {
	if *links++; *links > t.links {
		return nil, fmt.Errorf("%s: %w", relpath.Join(p.Path, base), unix.ELOOP)
	}
	target, err := file.ReadLink(p.FD, base)
	if err != nil {
		return nil, fmt.Errorf("read link %s: %w", relpath.Join(p.Path, base), err)
	}
	d := p
	if strings.HasPrefix(target, "/") {
		d = t.root
	}
	for element := range strings.SplitSeq(target, "/") {
		switch element {
		case "", ".":
			continue
		case "..":
			parent, _ := relpath.Split(d.Path)
			d, err = t.open(parent)
		default:
			d, err = t.step(d, element, create && !t.asIs, links)
		}
		if err != nil {
			return nil, fmt.Errorf("follow link %s: %w", relpath.Join(p.Path, base), err)
		}
	}
	return d, nil
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
