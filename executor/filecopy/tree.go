package filecopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
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

// node is one file of a selection as it was when it was selected.
type node struct {
	name      string
	link      string  // target of a symbolic link
	children  []*node // of a directory, by name
	size      int64
	mtime     unix.Timespec
	ctime     unix.Timespec
	dev, ino  uint64
	rdev      uint64
	id        int // place in the selection, from 0
	mode      uint32
	uid, gid  uint32
	manyLinks bool
	// parentOnly says that the directory isn't copied itself, only for what is
	// copied below it.
	parentOnly bool
}

func newNode(name string, st *unix.Stat_t) *node {
	return &node{
		name: name, size: st.Size, mtime: st.Mtim, ctime: st.Ctim,
		dev: st.Dev, ino: st.Ino, rdev: st.Rdev,
		mode: st.Mode, uid: st.Uid, gid: st.Gid,
		manyLinks: isRegular(st.Mode) && st.Nlink > 1,
	}
}

// inode identifies a file among all its names.
type inode struct{ dev, ino uint64 }

func (n *node) inode() inode { return inode{n.dev, n.ino} }

// unchanged reports whether st is that of the file selected. The inode number
// isn't compared: some network file systems make it up at each look-up.
func (n *node) unchanged(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == n.mode&unix.S_IFMT && st.Size == n.size && st.Mtim == n.mtime
}

// scanner reads the directories of one source into nodes, leaving out what the
// filter excludes and what the source doesn't want.
type scanner struct {
	filter *filter
	within *within
	sel    *Selection
}

// spot is a directory being scanned.
type spot struct {
	rel   string // from the root of the tree
	below string // from the source
	info  matchInfo
	said  verdict
}

// children returns what the directory fd holds. Sockets mean nothing outside the
// host that made them and are left out.
func (s *scanner) children(ctx context.Context, fd int, at spot) ([]*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	names, err := readNames(fd)
	if err != nil {
		return nil, fmt.Errorf("read directory %q: %w", at.rel, changed(err))
	}
	nodes := make([]*node, 0, len(names))
	for _, name := range names {
		n, err := s.child(ctx, fd, at, name)
		if err != nil {
			return nil, err
		}
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// child returns the node of name in the directory fd, nil if it isn't copied.
func (s *scanner) child(ctx context.Context, fd int, in spot, name string) (*node, error) {
	at := spot{rel: path.Join(in.rel, name), below: path.Join(in.below, name)}
	excluded, info, err := s.filter.match(at.rel, in.info)
	if err != nil {
		return nil, err
	}
	at.info = info
	if at.said, err = s.within.match(at.below, in.said); err != nil {
		return nil, err
	}
	if at.said.closed {
		return nil, nil // documented result
	}
	st, err := s.sel.tree.statat(fd, name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // removed since the directory was read: not in the tree
	}
	if err != nil {
		return nil, fmt.Errorf("stat %q: %w", at.rel, err)
	}
	if isDir(st.Mode) {
		if excluded && !s.filter.mayHold(at.rel) {
			return nil, nil // documented result
		}
		if s.sel.tree.leavesOut(&st, at.rel) {
			return nil, nil // documented result
		}
		return s.directory(ctx, fd, newNode(name, &st), at, excluded)
	}
	if excluded || !at.said.included {
		return nil, nil // documented result
	}
	if isSocket(st.Mode) {
		s.sel.sockets = append(s.sel.sockets, at.rel)
		return nil, nil
	}
	n := newNode(name, &st)
	s.sel.add(n)
	if isSymlink(st.Mode) {
		if n.link, err = readlinkat(fd, name); err != nil {
			return nil, fmt.Errorf("read link %q: %w", at.rel, changed(err))
		}
	}
	return n, nil
}

// directory reads the children of n. A directory that is excluded is there only
// as the parent of what a "!" pattern takes in again, one that isn't wanted as
// the parent of what is.
func (s *scanner) directory(ctx context.Context, parent int, n *node, at spot, excluded bool) (*node, error) {
	n.parentOnly = !at.said.included
	s.sel.add(n)
	fd, err := openat(parent, n.name, openDir)
	if err != nil {
		if excluded && errors.Is(err, unix.EACCES) || missing(err) {
			return nil, nil // hidden or gone: not in the tree
		}
		return nil, fmt.Errorf("open directory %q: %w", at.rel, err)
	}
	defer closeFD(fd)
	n.children, err = s.children(ctx, fd, at)
	if err != nil {
		return nil, err
	}
	if (excluded || n.parentOnly) && len(n.children) == 0 {
		return nil, nil // documented result
	}
	return n, nil
}
