package filecopy

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

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

// finder resolves one path in a tree. The stack holds the directories from the
// root to the current one, so that ".." never asks the kernel for a parent that
// may have been moved out of the root meanwhile.
type finder struct {
	tree  *Tree
	stack []found
	rest  []string
	links int
}

// find resolves p inside the tree as if the tree's root were "/". The final
// link is followed too. The result's descriptor is to be closed. An error that
// is a *NotFoundError lacks the source.
func (t *Tree) find(p string) (found, error) {
	fd, err := openat(t.fd, ".", openNode)
	if err != nil {
		return found{}, fmt.Errorf("open %s: %w", t.dir, err)
	}
	f := &finder{tree: t, rest: strings.Split(p, "/")}
	st, err := t.fstat(fd)
	f.stack = append(f.stack, found{dir: fd, st: st})
	if err != nil {
		f.pop(0)
		return found{}, fmt.Errorf("stat %s: %w", t.dir, err)
	}
	res, err := f.run()
	if err != nil {
		f.pop(0)
	}
	return res, err
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

func (f *finder) top() *found { return &f.stack[len(f.stack)-1] }

// pop closes all directories but the first keep.
func (f *finder) pop(keep int) {
	for _, d := range f.stack[keep:] {
		closeFD(d.dir)
	}
	f.stack = f.stack[:keep]
}

// run takes the components one by one. On success all descriptors but that of
// the result are closed.
func (f *finder) run() (found, error) {
	for len(f.rest) > 0 {
		name := f.rest[0]
		f.rest = f.rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			f.pop(max(1, len(f.stack)-1))
			continue
		}
		next, err := f.step(name)
		if err != nil {
			return found{}, err
		}
		if next != nil {
			return *next, nil
		}
	}
	last := *f.top()
	f.stack = f.stack[:len(f.stack)-1]
	f.pop(0)
	return last, nil
}

// step goes one name down. It returns the end of the way if name isn't a
// directory.
func (f *finder) step(name string) (*found, error) {
	dir := f.top()
	next := found{rel: path.Join(dir.rel, name)}
	var err error
	if next.excluded, next.info, err = f.tree.filter.match(next.rel, dir.info); err != nil {
		return nil, err
	}
	if next.st, err = f.tree.statat(dir.dir, name); err != nil {
		if missing(err) {
			return nil, f.notFound(dir, name)
		}
		return nil, fmt.Errorf("stat %q: %w", next.rel, err)
	}
	if isDir(next.st.Mode) {
		if f.tree.leavesOut(&next.st, next.rel) {
			return nil, &NotFoundError{}
		}
		if next.dir, err = openat(dir.dir, name, openNode); err != nil {
			return nil, fmt.Errorf("open %q: %w", next.rel, changed(err))
		}
		f.stack = append(f.stack, next)
		return nil, nil // not the end yet
	}
	if next.excluded {
		e := &NotFoundError{Excluded: f.tree.filter.culprit(next.rel)}
		if f.links > 0 {
			e.Target = "/" + next.rel
		}
		return nil, e
	}
	if isSymlink(next.st.Mode) {
		return nil, f.follow(dir, name, next.rel)
	}
	if strings.Trim(path.Join(f.rest...), "./") != "" {
		return nil, &NotFoundError{}
	}
	next.dir = dir.dir
	f.stack = f.stack[:len(f.stack)-1]
	f.pop(0)
	return &next, nil
}

func (f *finder) follow(dir *found, name, rel string) error {
	target, err := readlinkat(dir.dir, name)
	if err != nil {
		return fmt.Errorf("read link %q: %w", rel, changed(err))
	}
	if f.links++; f.links > maxLinks {
		return fmt.Errorf("follow link %q: %w", rel, unix.ELOOP)
	}
	if path.IsAbs(target) {
		f.pop(1)
	}
	f.rest = append(strings.Split(target, "/"), f.rest...)
	return nil
}

// notFound says why name isn't in dir, with a name that is and looks alike.
func (f *finder) notFound(dir *found, name string) error {
	e := &NotFoundError{}
	if f.links > 0 {
		e.Target = "/" + path.Join(dir.rel, name, path.Join(f.rest...))
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
		e.Suggestion = path.Join(dir.rel, near, path.Join(f.rest...))
		if rest := path.Join(f.rest...); rest != "" && !f.exists(e.Suggestion) {
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
