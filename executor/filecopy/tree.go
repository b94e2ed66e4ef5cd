package filecopy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"sync"

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
	return &Tree{dir: dir, fd: fd, filter: f}, nil
}

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
	dev, ino  uint64
	rdev      uint64
	id        int // place in the selection, from 0
	mode      uint32
	uid, gid  uint32
	manyLinks bool
}

func newNode(name string, st *unix.Stat_t) *node {
	return &node{
		name: name, size: st.Size, mtime: st.Mtim,
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

// scanner reads directories into nodes, leaving out what the filter excludes.
type scanner struct {
	filter *filter
	sel    *Selection
}

// children returns what the directory fd, rel from the root of the tree, holds.
// Sockets mean nothing outside the host that made them and are left out.
func (s *scanner) children(ctx context.Context, fd int, rel string, info matchInfo) ([]*node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	names, err := readNames(fd)
	if err != nil {
		return nil, fmt.Errorf("read directory %q: %w", rel, err)
	}
	nodes := make([]*node, 0, len(names))
	for _, name := range names {
		n, err := s.child(ctx, fd, rel, name, info)
		if err != nil {
			return nil, err
		}
		if n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}

// child returns the node of name in the directory fd, nil if the tree hasn't it.
func (s *scanner) child(ctx context.Context, fd int, rel, name string, info matchInfo) (*node, error) {
	rel = path.Join(rel, name)
	excluded, info, err := s.filter.match(rel, info)
	if err != nil {
		return nil, err
	}
	st, err := statat(fd, name)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil // removed since the directory was read: not in the tree
	}
	if err != nil {
		return nil, fmt.Errorf("stat %q: %w", rel, err)
	}
	if excluded && (!isDir(st.Mode) || !s.filter.mayHold(rel)) {
		return nil, nil // documented result
	}
	if isSocket(st.Mode) {
		s.sel.sockets = append(s.sel.sockets, rel)
		return nil, nil
	}
	n := newNode(name, &st)
	n.id = s.sel.nodes
	s.sel.add(n)
	if isDir(st.Mode) {
		return s.directory(ctx, fd, n, rel, excluded, info)
	}
	if isSymlink(st.Mode) {
		if n.link, err = readlinkat(fd, name); err != nil {
			return nil, fmt.Errorf("read link %q: %w", rel, err)
		}
	}
	return n, nil
}

// directory reads the children of n. An excluded directory is there only as the
// parent of what a "!" pattern takes in again.
func (s *scanner) directory(ctx context.Context, parent int, n *node, rel string, excluded bool, info matchInfo) (*node, error) {
	fd, err := openat(parent, n.name, openDir)
	if err != nil {
		if excluded && errors.Is(err, unix.EACCES) || missing(err) {
			return nil, nil // hidden or gone: not in the tree
		}
		return nil, fmt.Errorf("open directory %q: %w", rel, err)
	}
	defer closeFD(fd)
	n.children, err = s.children(ctx, fd, rel, info)
	if err != nil {
		return nil, err
	}
	if excluded && len(n.children) == 0 {
		return nil, nil // documented result
	}
	return n, nil
}
