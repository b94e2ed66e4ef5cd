package filecopy

import "golang.org/x/sys/unix"

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

// unchanged reports whether st belongs to the selected file. The inode number isn't
// compared: some network file systems make it up at each look-up.
func (n *node) unchanged(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == n.mode&unix.S_IFMT && st.Size == n.size && st.Mtim == n.mtime
}
