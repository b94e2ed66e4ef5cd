package file

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Dir is an open directory of a tree.
type Dir struct {
	FD   int
	Path string // from the root, without links; "" is the root
}

// Directory are the flags that a directory is opened with.
const Directory = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// An Inode is what tells files apart.
type Inode struct{ dev, ino uint64 }

// InodeOf returns the inode of the file that has the status st.
func InodeOf(st *unix.Stat_t) Inode { return Inode{st.Dev, st.Ino} }

// Path returns a path of the entry base of the directory fd, for calls that
// take paths only.
func Path(fd int, base string) string { return "/proc/self/fd/" + strconv.Itoa(fd) + "/" + base }

// ReadLink returns what the symbolic link name of the directory fd contains.
func ReadLink(fd int, name string) (string, error) {
	for size := 256; ; size *= 4 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(fd, name, b)
		if err != nil {
			return "", err
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// descriptor is an open file to be written to.
type descriptor int

func (d descriptor) Write(b []byte) (int, error) {
	if err := writeAll(int(d), b); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	return len(b), nil
}
