package filecopy

import (
	"encoding/binary"
	"hash"
	"path"

	"golang.org/x/sys/unix"
)

// encoder writes framed fields into a hash.
type encoder struct {
	hash   hash.Hash
	owners bool
	sums   []Sum
	frame  [8]byte
}

func (e *encoder) number(v uint64) {
	binary.BigEndian.PutUint64(e.frame[:], v)
	e.hash.Write(e.frame[:])
}

func (e *encoder) bytes(b []byte) {
	e.number(uint64(len(b)))
	e.hash.Write(b)
}

func (e *encoder) text(s string) { e.bytes([]byte(s)) }

// node encodes n and what is below it.
func (e *encoder) node(n *node, rel string) {
	e.entry(n, rel)
	if isDir(n.mode) {
		e.children(n, rel)
	}
}

func (e *encoder) entry(n *node, rel string) {
	e.text(rel)
	mode := n.mode
	if isSymlink(mode) {
		mode = unix.S_IFLNK // its permissions mean nothing and differ by file system
	}
	e.number(uint64(mode))
	e.text(n.link)
	if mode&unix.S_IFMT == unix.S_IFCHR || mode&unix.S_IFMT == unix.S_IFBLK {
		e.number(n.rdev)
	}
	if e.owners {
		e.number(uint64(n.uid)<<32 | uint64(n.gid))
	}
	e.bytes(e.sums[n.id][:])
}

func (e *encoder) children(n *node, rel string) {
	e.number(uint64(len(n.children)))
	for _, child := range n.children {
		e.node(child, path.Join(rel, child.name))
	}
}

// twins encodes which names are hard links. Without any it encodes nothing.
func (e *encoder) twins(twins []twin) {
	if len(twins) == 0 {
		return
	}
	e.text("hard links")
	e.number(uint64(len(twins)))
	for _, t := range twins {
		e.text(t.name)
		e.text(t.first)
	}
}

// A twin is a file that is copied as a hard link. The names are relative to the source.
type twin struct {
	*node

	name, first string
}

// twins returns the files of the directory src that are copied as hard links, each with
// the first of its names.
func (s *Selection) twins(src *source) []twin {
	var found []twin
	firsts := make(map[inode]string)
	var visit func(n *node, rel string)
	visit = func(n *node, rel string) {
		for _, child := range n.children {
			name := path.Join(rel, child.name)
			visit(child, name)
			if !child.manyLinks || s.names[child.inode()] < 2 {
				continue
			}
			if first, ok := firsts[child.inode()]; ok {
				found = append(found, twin{child, name, first})
			} else {
				firsts[child.inode()] = name
			}
		}
	}
	if len(s.names) > 0 {
		visit(src.node, "")
	}
	return found
}
