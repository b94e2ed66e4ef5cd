package owners

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	capability = "security.capability"
	trusted    = "trusted."
	prefix     = "user.bob." // of recorded attributes
)

const (
	permissions = 0o7777
	setIDs      = unix.S_ISUID | unix.S_ISGID
)

// file is the way to a file that may be of any type.
type file struct {
	path   string
	follow bool // path is a link of /proc that leads to the file
}

// opened is the file of the descriptor fd, which may be one of O_PATH.
func opened(fd int) file { return file{path: fdPath(fd), follow: true} }

// entry is the file called name in the directory fd, itself if it is a link.
func entry(dir int, name string) file {
	if dir == unix.AT_FDCWD {
		return file{path: name}
	}
	return file{path: fdPath(dir) + "/" + name}
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// held calls f for the file called name in dir, itself if it is a link. It opens the
// file first: between two calls of f another process may put a link in its place, which
// chmod(2) would follow out of the tree.
func held(dir int, name string, f func(file) error) error {
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(opened(fd))
}

// carries reports whether a file of this mode can have user attributes.
func carries(mode uint32) bool {
	kind := mode & unix.S_IFMT
	return kind == unix.S_IFREG || kind == unix.S_IFDIR
}

// onDisk returns the permissions on the disk of what has the recorded mode.
func onDisk(mode uint32) uint32 {
	let := uint32(0o600)
	if mode&unix.S_IFMT == unix.S_IFDIR {
		let = 0o700
	}
	return mode&permissions&^setIDs | let
}

func (f file) flags() int {
	if f.follow {
		return 0
	}
	return unix.AT_SYMLINK_NOFOLLOW
}

func (f file) stat(st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstatat(unix.AT_FDCWD, f.path, st, f.flags()) })
}

// setMode sets the mode on the disk. The file is no link.
func (f file) setMode(mode uint32) error {
	return retry(func() error { return unix.Fchmodat(unix.AT_FDCWD, f.path, mode, 0) })
}

func (f file) getxattr(name string, b []byte) (n int, err error) {
	err = retry(func() error {
		if f.follow {
			n, err = unix.Getxattr(f.path, name, b)
		} else {
			n, err = unix.Lgetxattr(f.path, name, b)
		}
		return err
	})
	return n, err
}

func (f file) setxattr(name string, value []byte) error {
	return retry(func() error {
		if f.follow {
			return unix.Setxattr(f.path, name, value, 0)
		}
		return unix.Lsetxattr(f.path, name, value, 0)
	})
}

func (f file) removexattr(name string) error {
	return retry(func() error {
		if f.follow {
			return unix.Removexattr(f.path, name)
		}
		return unix.Lremovexattr(f.path, name)
	})
}

// none reports whether err says that there is no such attribute.
func none(err error) bool {
	return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP)
}

// retry calls f until it isn't interrupted.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
