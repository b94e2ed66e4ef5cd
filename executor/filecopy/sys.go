package filecopy

import (
	"errors"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// openDir opens a directory for reading without following a link.
	openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW
	// openNode opens a directory only to resolve names in it, which needs no
	// read permission.
	openNode = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW
	// openData opens a file for reading; O_NONBLOCK so that a fifo put in its
	// place can't block the open.
	openData = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
)

// retry calls f until it isn't interrupted: the runtime's preemption signals
// interrupt slow system calls on FUSE and network file systems.
func retry(f func() error) error {
	for {
		err := f()
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func openat(dir int, name string, flags int) (int, error) {
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

func closeFD(fd int) {
	_ = unix.Close(fd)
}

func readlinkat(dir int, name string) (string, error) {
	var buf [unix.PathMax]byte
	n := 0
	err := retry(func() (err error) {
		n, err = unix.Readlinkat(dir, name, buf[:])
		return err
	})
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// openRoot opens the directory that confines everything below it. The path is
// the caller's own and may hold links.
func openRoot(dir string) (int, error) {
	fd, err := openat(unix.AT_FDCWD, dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return fd, nil
}

// openBeneath opens the directory at the canonical path rel below dir, one
// component at a time, each from the descriptor of the one before and without
// following links: whatever happens to the tree meanwhile, the kernel can't be
// led out of it.
func openBeneath(dir int, rel string, flags int) (int, error) {
	fd, err := openat(dir, ".", openNode)
	if err != nil {
		return -1, err
	}
	for name := range strings.SplitSeq(rel, "/") {
		if name == "" {
			continue
		}
		next, err := openat(fd, name, openNode)
		closeFD(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	if flags == openNode {
		return fd, nil
	}
	defer closeFD(fd)
	return openat(fd, ".", flags)
}

// readNames returns the sorted names in the open directory fd, which stays
// open. A descriptor can be read this way once.
func readNames(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.ReadDirent(fd, buf)
			return err
		})
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	slices.Sort(names)
	return names, nil
}

func isDir(mode uint32) bool     { return mode&unix.S_IFMT == unix.S_IFDIR }
func isRegular(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFREG }
func isSymlink(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFLNK }
func isSocket(mode uint32) bool  { return mode&unix.S_IFMT == unix.S_IFSOCK }

// missing reports whether err says that a name isn't there, be it because
// something on the way isn't a directory.
func missing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)
}

// changed returns ErrChanged for an error that says that what was there a moment ago
// isn't any more, or is something else, and any other error as it is.
func changed(err error) error {
	if replaced(err) || errors.Is(err, unix.EINVAL) { // the latter from readlink(2)
		return ErrChanged
	}
	return err
}

// replaced reports whether opening a name that was seen before failed in a way
// that says that something else is there now.
func replaced(err error) bool {
	return missing(err) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO)
}
