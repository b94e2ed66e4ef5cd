package filecopy

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// place is where a path leads to inside a root, links followed.
type place struct {
	fd     int    // the directory itself, or the parent of name; close it
	name   string // last component if it isn't a directory, else ""
	exists bool   // name is there, and isn't a directory
	linked bool   // links led there
	path   string // canonical path inside the root, starting with "/"
}

func (p *place) close() { closeFD(p.fd) }

// maker creates the directories that are missing on a way.
type maker struct {
	mode   uint32
	owner  *Owner // nil: the process's
	owners owners.Keeper
	reveal func(dir, name string) error
}

// mkdir creates name in dir and opens it for reading. It must not exist.
func (m maker) mkdir(dir int, name string) (int, error) {
	if err := retry(func() error { return unix.Mkdirat(dir, name, 0o700) }); err != nil {
		return -1, err
	}
	fd, err := openat(dir, name, openDir)
	if err != nil {
		return -1, err
	}
	uid, gid := m.owner.ids()
	if err := m.owners.Fset(fd, uid, gid, m.mode); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// placer resolves one destination. As in finder, the stack holds every
// directory from the root to the current one.
type placer struct {
	make  maker
	stack []int
	names []string
	rest  []string
	links int
}

// locate resolves p inside the directory root as if that were "/", following
// links, and creates the directories missing before the last component: also
// those that a dangling link asks for.
func locate(root int, p string, m maker) (*place, error) {
	fd, err := openat(root, ".", openNode)
	if err != nil {
		return nil, err
	}
	w := &placer{make: m, stack: []int{fd}, rest: strings.Split(p, "/")}
	defer w.pop(0)
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			w.pop(max(1, len(w.stack)-1))
			continue
		}
		end, err := w.step(name)
		if err != nil {
			return nil, &os.PathError{Op: "resolve", Path: w.path(name), Err: err}
		}
		if end != nil {
			return end, nil
		}
	}
	last := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	return &place{fd: last, linked: w.links > 0, path: w.path("")}, nil
}

func (w *placer) path(name string) string {
	return path.Join("/", path.Join(w.names...), name)
}

// pop closes all directories but the first keep.
func (w *placer) pop(keep int) {
	if keep > len(w.stack) {
		return
	}
	for _, fd := range w.stack[keep:] {
		closeFD(fd)
	}
	w.stack = w.stack[:keep]
	w.names = w.names[:max(0, keep-1)]
}

func (w *placer) last() bool {
	for _, name := range w.rest {
		if name != "" && name != "." {
			return false
		}
	}
	return true
}

// returns reports whether the next component is "..", and takes it then.
func (w *placer) returns() bool {
	for i, name := range w.rest {
		switch name {
		case "", ".":
		case "..":
			w.rest = w.rest[i+1:]
			return true
		default:
			return false
		}
	}
	return false
}

// end returns the place name in the current directory.
func (w *placer) end(name string, exists bool) *place {
	p := &place{fd: w.stack[len(w.stack)-1], name: name, exists: exists, linked: w.links > 0, path: w.path(name)}
	w.stack = w.stack[:len(w.stack)-1]
	return p
}

// step goes one name down, and returns the place if that is the end.
func (w *placer) step(name string) (*place, error) {
	top := w.stack[len(w.stack)-1]
	if err := w.make.reveal(w.path(""), name); err != nil {
		return nil, err
	}
	fd, err := openat(top, name, openNode)
	switch {
	case err == nil:
	case errors.Is(err, unix.ENOENT):
		if w.last() {
			return w.end(name, false), nil
		}
		if w.returns() {
			return nil, nil // as from BuildKit: nothing is made to be left again
		}
		if fd, err = w.make.mkdir(top, name); err != nil {
			return nil, err
		}
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return w.follow(top, name)
	default:
		return nil, err
	}
	w.stack = append(w.stack, fd)
	w.names = append(w.names, name)
	return nil, nil // not the end yet
}

// follow takes up the link name; what isn't a link is a file.
func (w *placer) follow(top int, name string) (*place, error) {
	target, err := readlinkat(top, name)
	if errors.Is(err, unix.EINVAL) {
		if w.last() {
			return w.end(name, true), nil
		}
		return nil, unix.ENOTDIR
	}
	if err != nil {
		return nil, err
	}
	if w.links++; w.links > maxLinks {
		return nil, unix.ELOOP
	}
	if path.IsAbs(target) {
		w.pop(1)
	}
	w.rest = append(strings.Split(target, "/"), w.rest...)
	return nil, nil // not the end yet
}

// enter makes the place a directory if nothing is there.
func (p *place) enter(m maker) error {
	if p.name == "" {
		return nil
	}
	if p.exists {
		return fmt.Errorf("cannot copy to non-directory %q: %w", p.path, unix.ENOTDIR)
	}
	fd, err := m.mkdir(p.fd, p.name)
	if err != nil {
		return &os.PathError{Op: "mkdir", Path: p.path, Err: err}
	}
	closeFD(p.fd)
	p.fd, p.name = fd, ""
	return nil
}

// MakeDir makes the directory p, resolved inside the directory root as if that
// were "/": links are followed but never out of it, and p may be what a dangling
// link asks for. Directories that are missing get mode 0755, whatever the umask,
// and the owner of o (nil: that of the process); existing ones are left untouched.
// It is what WORKDIR does.
func MakeDir(root, p string, o Options) error {
	fd, err := openRoot(root)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	m := maker{mode: 0o755, owner: o.Owner, owners: o.Owners, reveal: o.reveal}
	at, err := locate(fd, p, m)
	if err != nil {
		return fmt.Errorf("make directory %q: %w", p, err)
	}
	defer at.close()
	if at.exists {
		return fmt.Errorf("make directory %q: %w", p, unix.ENOTDIR)
	}
	if err := at.enter(m); err != nil {
		return fmt.Errorf("make directory %q: %w", p, err)
	}
	return nil
}

// setTime sets the modification time of name in dir, not following a link, and
// leaves the access time.
func setTime(dir int, name string, mtime unix.Timespec) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	return retry(func() error { return unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW) })
}
