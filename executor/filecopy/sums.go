package filecopy

import (
	"crypto/sha256"
	"time"
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
