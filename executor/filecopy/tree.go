package filecopy

import (
	"os"
	"sync"
	"time"

	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// Tree is a directory from which sources are selected: a build context, or the
// mounted root of an image or stage. All reads are confined to it. Its methods
// are safe for concurrent use; selections of one tree are made one at a time.
type Tree struct {
	dir    string
	fd     int
	mu     sync.Mutex // the filter
	filter *filter
	sums   Sums // nil: nothing is remembered
	now    func() time.Time
	owners owners.Keeper
	out    leftOut
}

// leftOut is a directory that isn't in a tree although it lies there. The zero value is
// none.
type leftOut struct {
	inode

	told sync.Once
	tell func(rel string)
}

// LeaveOut has the tree be without the directory dir, wherever in it that lies, as if
// it weren't there. tell, unless nil, is called with its path in the tree when it is first
// met. A directory that doesn't exist is nowhere. It is called before the tree's first use.
func (t *Tree) LeaveOut(dir string, tell func(rel string)) {
	var st unix.Stat_t
	if unix.Stat(dir, &st) == nil {
		t.out.inode, t.out.tell = inode{st.Dev, st.Ino}, tell
	}
}

// leavesOut reports whether the directory with the status st, at rel, isn't in the tree.
func (t *Tree) leavesOut(st *unix.Stat_t, rel string) bool {
	if t.out.ino == 0 || t.out.inode != (inode{st.Dev, st.Ino}) {
		return false
	}
	if t.out.tell != nil {
		t.out.told.Do(func() { t.out.tell(rel) })
	}
	return true
}

// OpenDir opens the directory dir. ignore holds the patterns of a .dockerignore
// (see ReadIgnore); what they exclude doesn't exist in the tree. The caller
// closes the tree after the last use of its selections.
func OpenDir(dir string, ignore []string) (*Tree, error) {
	f, err := newFilter(ignore)
	if err != nil {
		return nil, err
	}
	fd, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Tree{dir: dir, fd: fd, filter: f, now: time.Now}, nil
}

// Keep says how the tree has owners, where that isn't [owners.Disk]. It is called
// before the tree's first use.
func (t *Tree) Keep(k owners.Keeper) { t.owners = k }

// Close releases the tree's descriptor. Selections can't be used afterwards.
func (t *Tree) Close() error {
	if err := unix.Close(t.fd); err != nil {
		return &os.PathError{Op: "close", Path: t.dir, Err: err}
	}
	return nil
}

func (t *Tree) statat(dir int, name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := t.owners.Fstatat(dir, name, &st)
	return st, err
}

func (t *Tree) fstat(fd int) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := t.owners.Fstat(fd, &st)
	return st, err
}

// Remember has Digest look for sums in s before it reads a file, and keep there
// what it had to compute. It is called before the tree's first use.
func (t *Tree) Remember(s Sums) { t.sums = s }
