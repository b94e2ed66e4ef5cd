package checkout

import (
	"fmt"
	"os"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

// listed is what is known of a file of a checkout, by which a change to it is seen.
type listed struct {
	state

	entries map[string]*listed // of a directory
	before  *listed            // the same file in the inventory before
	changed bool
}

// state is what the kernel says of a file. Whatever is done to a file changes its
// ctime, which no program can set, if the clock has moved since.
type state struct {
	ino                uint64
	born, ctime, mtime int64 // nanoseconds; born is 0 if the file system doesn't tell
	size, rdev         uint64
	mode, uid, gid     uint32
	nlink              uint32
}

func (n *listed) isDir() bool { return n.mode&unix.S_IFMT == unix.S_IFDIR }

// is reports whether n was the file o: an inode number alone is used again.
func (n *listed) is(o *listed) bool {
	return o != nil && n.ino == o.ino && n.born == o.born && n.mode&unix.S_IFMT == o.mode&unix.S_IFMT
}

// at returns the node at the path below the directory n, nil if there is none.
func (n *listed) at(path string) *listed {
	if path == "" {
		return n
	}
	parent, base := relpath.Split(path)
	if n = n.at(parent); n == nil {
		return nil
	}
	return n.entries[base]
}

// inventory lists the tree below a directory.
type inventory struct {
	root *listed
	// latest is the latest ctime in it.
	latest int64

	at *descent.Path // while it is taken
}

// maxDepth is how long a name in an inventory may be, in bytes. It is far more than a
// layer can hold, but of the files below one after another each path is kept.
const maxDepth = 64 << 10

// takeInventory lists the tree below the directory root, whatever is in it.
func takeInventory(root string) (*inventory, error) {
	fd, err := unix.Open(root, file.Directory, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd)
	v := &inventory{at: descent.From(fd)}
	defer v.at.Close()
	if v.root, err = v.stat(fd, ""); err != nil {
		return nil, fmt.Errorf("stat %s: %w", root, err)
	}
	return v, v.directory(v.root, 0)
}

// directory lists the entries of the directory n, where the inventory is, whose path has
// that length.
func (v *inventory) directory(n *listed, length int) error {
	if length > maxDepth {
		return fmt.Errorf("%q is longer than %d bytes, which the snapshotter copy can't copy", relpath.Brief(v.at.Join("")), maxDepth)
	}
	names, err := descent.Names(v.at.FD())
	if err != nil {
		return fmt.Errorf("read directory %q: %w", relpath.Brief(v.at.Join("")), err)
	}
	n.entries = make(map[string]*listed, len(names))
	for _, name := range names {
		e, err := v.stat(v.at.FD(), name)
		if err != nil {
			return fmt.Errorf("stat %q: %w", relpath.Brief(v.at.Join(name)), err)
		}
		n.entries[name] = e
		if !e.isDir() {
			continue
		}
		if err := v.at.Down(name); err != nil {
			return fmt.Errorf("%q: %w", relpath.Brief(v.at.Join(name)), err)
		}
		if err := v.directory(e, length+len(name)+1); err != nil {
			return err
		}
		if err := v.at.Up(); err != nil {
			return fmt.Errorf("leave %q: %w", relpath.Brief(v.at.Join(name)), err)
		}
	}
	return nil
}

// stat returns what is known of the entry name of the directory fd, "" for itself.
func (v *inventory) stat(fd int, name string) (*listed, error) {
	var s unix.Statx_t
	err := unix.Statx(fd, name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &s)
	if err != nil {
		return nil, err
	}
	n := &listed{state: state{
		ino: s.Ino, ctime: nanoseconds(s.Ctime), mtime: nanoseconds(s.Mtime), size: s.Size,
		rdev: unix.Mkdev(s.Rdev_major, s.Rdev_minor), mode: uint32(s.Mode), uid: s.Uid, gid: s.Gid, nlink: s.Nlink,
	}}
	if s.Mask&unix.STATX_BTIME != 0 {
		n.born = nanoseconds(s.Btime)
	}
	v.latest = max(v.latest, n.ctime)
	return n, nil
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }
