package sandbox

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/emulate"
)

// nodes is who makes the device nodes that commands ask for.
type nodes struct {
	kernel  bool // makes them for this process, and for what is in its user namespace
	outer   bool // an outer bob does, by files that stand for them
	listens bool // this process can make them for others, none of whose parents does so
}

// wanted reports whether commands take an emulation of devices, and can have it; nested
// says that they are in a user namespace of their own, for which the kernel makes none.
func (n nodes) wanted(nested bool) bool { return n.listens && (nested || !n.kernel) }

// findNodes tries in dir, with a device that no machine has.
func findNodes(dir string) nodes {
	n := nodes{listens: emulate.CanListen()}
	path := filepath.Join(dir, "node")
	if err := makeNode(path); err != nil {
		return n
	}
	defer func() { _ = os.Remove(path) }() // or with dir
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	n.kernel = err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK
	n.outer = err == nil && !n.kernel
	return n
}

// makeNode makes a node of a block device that no machine has.
func makeNode(path string) error {
	return unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(blockExtended, 1<<20-1)))
}

// blockExtended is the major number of block devices that have no other.
const blockExtended = 259
