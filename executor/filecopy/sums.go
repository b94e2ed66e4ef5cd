package filecopy

import (
	"crypto/sha256"
	"time"

	"golang.org/x/sys/unix"
)

// A FileID says which file one is and when it was last changed in any way. Nothing
// but the clock's being put back gives the same ID to other content.
type FileID struct {
	Dev, Inode   uint64
	Size         int64 // bytes
	Mtime, Ctime int64 // nanoseconds since 1970
}

// A Sum is the digest of a regular file's bytes and carried extended attributes.
type Sum [sha256.Size]byte

// Sums remembers the sums of files. Its methods are called concurrently.
type Sums interface {
	// Find returns the sum kept for id.
	Find(id FileID) (Sum, bool)
	// Keep remembers the sum of id.
	Keep(id FileID, sum Sum)
}

// Remember has Digest look for sums in s before it reads a file, and keep there
// what it had to compute. It is called before the tree's first use.
func (t *Tree) Remember(s Sums) { t.sums = s }

// settling is how long a file must have been left alone before its sum is kept. A
// file that is changed twice within one tick of its file system's clock has the
// same times both times; the coarsest clock in use, FAT's, ticks every two seconds.
const settling = 2 * time.Second

func (n *node) fileID() FileID {
	return FileID{n.dev, n.ino, n.size, n.mtime.Nano(), n.ctime.Nano()}
}

// settled reports whether n, whose bytes are read later than now, was last changed
// long enough ago.
func (n *node) settled(now time.Time) bool {
	limit := now.Add(-settling).UnixNano()
	return n.mtime.Nano() < limit && n.ctime.Nano() < limit
}

// found returns the sum of n if it is remembered.
func (h *hasher) found(n *node) bool {
	if h.memory == nil {
		return false
	}
	sum, ok := h.memory.Find(n.fileID())
	if ok {
		h.sums[n.id] = sum
	}
	return ok
}

// keep remembers the sum of n, which was opened later than now with the status st.
func (h *hasher) keep(n *node, st *unix.Stat_t, now time.Time) {
	if h.memory != nil && n.settled(now) && st.Ino == n.ino && st.Ctim == n.ctime {
		h.memory.Keep(n.fileID(), h.sums[n.id])
	}
}
