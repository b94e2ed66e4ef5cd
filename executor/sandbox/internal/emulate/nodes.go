package emulate

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Nodes is who makes the device nodes that commands ask for.
type Nodes struct {
	Kernel  bool // makes them for this process, and for what is in its user namespace
	Outer   bool // an outer bob does, by files that stand for them
	Listens bool // this process can make them for others, none of whose parents does so
}

// Wanted reports whether commands take an emulation of devices, and can have it; nested
// says that they are in a user namespace of their own, for which the kernel makes none.
func (n Nodes) Wanted(nested bool) bool { return n.Listens && (nested || !n.Kernel) }

// FindNodes tries in dir, with a device that no machine has.
func FindNodes(dir string) Nodes {
	n := Nodes{Listens: CanListen()}
	path := filepath.Join(dir, "node")
	if err := MakeNode(path); err != nil {
		return n
	}
	defer func() { _ = os.Remove(path) }() // or with dir
	var st unix.Stat_t
	err := unix.Lstat(path, &st)
	n.Kernel = err == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK
	n.Outer = err == nil && !n.Kernel
	return n
}

// MakeNode makes a node of a block device that no machine has.
func MakeNode(path string) error {
	return unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(blockExtended, 1<<20-1)))
}

// blockExtended is the major number of block devices that have no other.
const blockExtended = 259
