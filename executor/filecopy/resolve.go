package filecopy

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/bobbuild/bob/snapshot/pathwalk"
	"golang.org/x/sys/unix"
)

// found is a file of a tree that a path leads to, links followed.
type found struct {
	dir      int    // descriptor of the directory it is in, or of itself if it is one; the finder closes it
	rel      string // canonical path from the root, "" for the root
	st       unix.Stat_t
	info     matchInfo
	excluded bool
}

// find resolves p inside the tree as if the tree's root were "/". The final
// link is followed too. The result's descriptor is to be closed. An error that
// is a *NotFoundError lacks the source.
func (t *Tree) find(p string) (found, error) {
	fd, err := openat(t.fd, ".", openNode)
	if err != nil {
		return found{}, fmt.Errorf("open %s: %w", t.dir, err)
	}
	f := &finder{tree: t, way: way{{dir: fd}}}
	defer f.close()
	if f.here().st, err = t.fstat(fd); err != nil {
		return found{}, fmt.Errorf("stat %s: %w", t.dir, err)
	}
	if err := pathwalk.New(pathwalk.MaxLinks).Along(p, f); err != nil {
		return found{}, err
	}
	return f.take(), nil
}

// OpenInRoot opens what p leads to inside the directory root, as if that were "/", to
// name it only (O_PATH). The caller closes it. The error of what is missing is
// a [*NotFoundError] without a source.
func OpenInRoot(root, p string) (*os.File, error) {
	t, err := OpenDir(root, nil)
	if err != nil {
		return nil, err
	}
	defer closeFD(t.fd)
	at, err := t.find(p)
	if err != nil {
		return nil, err
	}
	if isDir(at.st.Mode) {
		return os.NewFile(uintptr(at.dir), p), nil
	}
	defer closeFD(at.dir)
	fd, err := openat(at.dir, path.Base(at.rel), unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", at.rel, err)
	}
	return os.NewFile(uintptr(fd), p), nil
}

// way holds the directories from a root to the one that a walk is in, so that ".." never
// asks the kernel for a parent that may have been moved out of the root meanwhile.
type way []found

// Root goes to the root.
func (w *way) Root() { w.keep(1) }

// Up goes to the parent.
func (w *way) Up() error {
	w.keep(max(1, len(*w)-1))
	return nil
}

// here returns the directory at the end, which is good until the next step.
func (w *way) here() *found { return &(*w)[len(*w)-1] }

// down goes to a directory that is in the one at the end, and takes its descriptor over.
func (w *way) down(d found) { *w = append(*w, d) }

// take returns what is at the end, with its descriptor. The way can only be closed then.
func (w *way) take() found {
	last := *w.here()
	*w = (*w)[:len(*w)-1]
	return last
}

func (w *way) close() { w.keep(0) }

// keep closes all directories but the first n.
func (w *way) keep(n int) {
	for _, d := range (*w)[n:] {
		closeFD(d.dir)
	}
	*w = (*w)[:n]
}

// finder resolves one path in a tree.
type finder struct {
	way

	tree *Tree
}

// Down goes to the entry name, which may be the file at the end.
func (f *finder) Down(name string, w *pathwalk.Walk) (target string, link bool, err error) {
	dir := f.here()
	next := found{rel: path.Join(dir.rel, name)}
	if next.excluded, next.info, err = f.tree.filter.match(next.rel, dir.info); err != nil {
		return "", false, err
	}
	if next.st, err = f.tree.statat(dir.dir, name); err != nil {
		if missing(err) {
			return "", false, f.notFound(name, w)
		}
		return "", false, fmt.Errorf("stat %q: %w", next.rel, err)
	}
	switch {
	case isDir(next.st.Mode):
		if f.tree.leavesOut(&next.st, next.rel) {
			return "", false, &NotFoundError{}
		}
		if next.dir, err = openat(dir.dir, name, openNode); err != nil {
			return "", false, fmt.Errorf("open %q: %w", next.rel, changed(err))
		}
		f.down(next)
	case next.excluded:
		e := &NotFoundError{Excluded: f.tree.filter.culprit(next.rel)}
		if w.Links() > 0 {
			e.Target = "/" + next.rel
		}
		return "", false, e
	case isSymlink(next.st.Mode):
		if target, err = readlinkat(dir.dir, name); err != nil {
			return "", false, fmt.Errorf("read link %q: %w", next.rel, changed(err))
		}
		return target, true, nil
	case !w.Last():
		return "", false, &NotFoundError{}
	default:
		next.dir = dir.dir
		*dir = next // the end of the way
	}
	return "", false, nil
}

// notFound says why name isn't there, with a name that is and looks alike.
func (f *finder) notFound(name string, w *pathwalk.Walk) error {
	dir, rest := f.here(), w.Rest()
	e := &NotFoundError{}
	if w.Links() > 0 {
		e.Target = "/" + path.Join(dir.rel, name, rest)
		return e
	}
	fd, err := openat(dir.dir, ".", openDir)
	if err != nil {
		return e
	}
	defer closeFD(fd)
	names, err := readNames(fd)
	if err != nil {
		return e
	}
	shown := names[:0]
	for _, n := range names {
		if excluded, _, err := f.tree.filter.match(path.Join(dir.rel, n), dir.info); err == nil && !excluded {
			shown = append(shown, n)
		}
	}
	if near := nearest(name, shown); near != "" {
		e.Suggestion = path.Join(dir.rel, near, rest)
		if rest != "" && !f.exists(e.Suggestion) {
			e.Suggestion = ""
		}
	}
	return e
}

// exists reports whether p is in the tree; it is asked only for suggestions.
func (f *finder) exists(p string) bool {
	var st unix.Stat_t
	dir, err := openBeneath(f.tree.fd, path.Dir(p), openNode)
	if err != nil {
		return false
	}
	defer closeFD(dir)
	st, err = f.tree.statat(dir, path.Base(p))
	return err == nil && st.Mode != 0
}

// withSource names the source in a *NotFoundError and in any other error.
func withSource(err error, source string) error {
	if e, ok := errors.AsType[*NotFoundError](err); ok {
		e.Source = source
		return e
	}
	return fmt.Errorf("find %q: %w", source, err)
}
