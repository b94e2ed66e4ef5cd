// Package descent goes through directory trees of any depth. It names every file
// relative to an open directory, so that no path can become longer than the kernel
// takes (PATH_MAX), follows no link, and has only a few directories open at once, so
// that depth costs no more descriptors than breadth.
package descent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// window is how many directories of a [Path] are open at once, its root left out.
const window = 32

// ErrMoved is the error of a directory that was moved to another parent while a walk
// was in it.
var ErrMoved = errors.New("directory was moved while it was read")

// A Path is the way from a root directory down to the one that a walk is in. One
// goroutine uses it at a time.
type Path struct {
	levels []level // the root comes first
}

// closed stands for the descriptor of a directory that isn't open.
const closed = -1

// level is a directory of a Path.
type level struct {
	name     string
	fd       int    // or closed
	dev, ino uint64 // set when it is closed
}

// From returns the path that ends at its root, the open directory fd. The caller
// closes the path, which leaves fd open, and fd after that.
func From(fd int) *Path { return &Path{levels: []level{{fd: fd}}} }

// FD returns the descriptor of the directory at the end. It is good until the next
// Down or Up.
func (p *Path) FD() int { return p.levels[len(p.levels)-1].fd }

// Join returns the path of the entry name of the directory at the end, from the root.
func (p *Path) Join(name string) string {
	var b strings.Builder
	for _, l := range p.levels[1:] {
		b.WriteString(l.name)
		b.WriteByte('/')
	}
	b.WriteString(name)
	return b.String()
}

// Down goes to the directory name of the one at the end. After an error the path is
// as it was.
func (p *Path) Down(name string) error {
	fd, err := Open(p.FD(), name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	if i := len(p.levels) - window; i > 0 {
		if err := p.levels[i].close(); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
	}
	p.levels = append(p.levels, level{name: name, fd: fd})
	return nil
}

// Up goes back to the parent of the directory at the end, which is not the root. The
// error of a directory that isn't in its parent any more is ErrMoved; the path leads
// nowhere then, and can only be closed.
func (p *Path) Up() error {
	last := len(p.levels) - 1
	parent := &p.levels[last-1]
	err := parent.reopen(p.levels[last].fd)
	if e := unix.Close(p.levels[last].fd); err == nil && e != nil {
		err = os.NewSyscallError("close", e)
	}
	p.levels = p.levels[:last]
	return err
}

// Close closes what the path has opened.
func (p *Path) Close() {
	for _, l := range p.levels[1:] {
		if l.fd != closed {
			unix.Close(l.fd)
		}
	}
	p.levels = p.levels[:1]
}

// close closes l, which reopen opens again.
func (l *level) close() error {
	if l.fd == closed {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(l.fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	l.dev, l.ino = st.Dev, st.Ino
	err := unix.Close(l.fd)
	l.fd = closed
	return os.NewSyscallError("close", err)
}

// reopen opens l, unless it is open, by way of its open child.
func (l *level) reopen(child int) error {
	if l.fd != closed {
		return nil
	}
	fd, err := Open(child, "..", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return errors.Join(os.NewSyscallError("fstat", err), unix.Close(fd))
	}
	if st.Dev != l.dev || st.Ino != l.ino {
		return errors.Join(ErrMoved, unix.Close(fd))
	}
	l.fd = fd
	return nil
}

// Open opens the entry name of the directory dir for reading, with the given flags
// beside, without following a link, and without leaving a trace in its access time
// where that is allowed.
func Open(dir int, name string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) { // someone else's file
		fd, err = unix.Openat(dir, name, flags, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open: %w", err)
	}
	return fd, nil
}

// Beneath calls f with what leads to the file at the path below the directory root,
// through no link: a directory, open until f returns, and a path below that, which the
// kernel takes however long the whole one is.
func Beneath(root int, path string, f func(dir int, rest string) error) error {
	const most = 3000
	dir := root
	defer func() {
		if dir != root {
			unix.Close(dir)
		}
	}()
	for len(path) > most {
		cut := strings.LastIndexByte(path[:most], '/')
		if cut <= 0 {
			return unix.ENAMETOOLONG
		}
		next, err := unix.Openat(dir, path[:cut], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if dir != root {
			unix.Close(dir)
		}
		dir, path = next, path[cut+1:]
	}
	return f(dir, path)
}

// OpenFile is os.Open of a path that may be longer than the kernel takes. Of such a one
// only the beginning, as far as the kernel takes it, may lead through links.
func OpenFile(path string) (*os.File, error) {
	fd := -1
	err := Beneath(unix.AT_FDCWD, path, func(dir int, rest string) (err error) {
		fd, err = unix.Openat(dir, rest, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Names returns the names of the entries of the open directory fd, in no order.
func Names(fd int) ([]string, error) {
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		return nil, os.NewSyscallError("lseek", err)
	}
	var names []string
	buf := make([]byte, 8<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("getdents", err)
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}
