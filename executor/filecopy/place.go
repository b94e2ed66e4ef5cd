package filecopy

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/bobbuild/bob/snapshot/owners"
	"github.com/bobbuild/bob/snapshot/pathwalk"
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

// placer resolves one destination.
type placer struct {
	way

	make   maker
	tried  string // the entry looked at last
	name   string // at the end, if that isn't a directory
	exists bool   // name is there
}

// locate resolves p inside the directory root as if that were "/", following
// links, and creates the directories missing before the last component: also
// those that a dangling link asks for.
func locate(root int, p string, m maker) (*place, error) {
	fd, err := openat(root, ".", openNode)
	if err != nil {
		return nil, err
	}
	at := &placer{make: m, way: way{{dir: fd}}}
	defer at.close()
	walk := pathwalk.New(pathwalk.MaxLinks)
	if err := walk.Along(p, at); err != nil {
		return nil, &os.PathError{Op: "resolve", Path: at.path(at.tried), Err: err}
	}
	whole := at.path(at.name)
	return &place{fd: at.take().dir, name: at.name, exists: at.exists, linked: walk.Links() > 0, path: whole}, nil
}

func (p *placer) path(name string) string { return path.Join("/", p.here().rel, name) }

// Down goes to the entry name, or makes it if more comes after it.
func (p *placer) Down(name string, w *pathwalk.Walk) (target string, link bool, err error) {
	p.tried = name
	dir := p.here()
	if err := p.make.reveal(p.path(""), name); err != nil {
		return "", false, err
	}
	fd, err := openat(dir.dir, name, openNode)
	switch {
	case errors.Is(err, unix.ENOENT) && w.Last():
		p.name = name
		return "", false, nil
	case errors.Is(err, unix.ENOENT) && w.Returns():
		// As from BuildKit nothing is made to be left again. Its parent stands in.
		fd, err = openat(dir.dir, ".", openNode)
	case errors.Is(err, unix.ENOENT):
		fd, err = p.make.mkdir(dir.dir, name)
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return p.follow(name, w)
	}
	if err != nil {
		return "", false, err
	}
	p.down(found{dir: fd, rel: path.Join(dir.rel, name)})
	return "", false, nil
}

// follow returns what the link name holds. What isn't a link is a file.
func (p *placer) follow(name string, w *pathwalk.Walk) (target string, link bool, err error) {
	target, err = readlinkat(p.here().dir, name)
	switch {
	case err == nil:
		return target, true, nil
	case !errors.Is(err, unix.EINVAL):
		return "", false, err
	case !w.Last():
		return "", false, unix.ENOTDIR
	}
	p.name, p.exists = name, true
	return "", false, nil
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

func (o *Options) maker() maker {
	return maker{mode: o.Mode.made(), owner: o.Owner, owners: o.Owners, reveal: o.reveal}
}

// endsInDir reports whether the path as written can only be a directory.
func endsInDir(p string) bool {
	return strings.HasSuffix(p, "/") || strings.HasSuffix(p, "/.") || p == "" || p == "."
}
