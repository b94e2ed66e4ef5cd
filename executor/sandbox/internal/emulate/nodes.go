package emulate

import (
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Nodes is who makes the device nodes that commands ask for.
type Nodes struct {
	Kernel  bool // makes them for this process, and for what is in its user namespace
	Outer   bool // an outer bob does, by files that stand for them
	Listens bool // this process can make them for others, and no parent of theirs does so
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

// CanListen reports whether a filter of this process's children may notify. The kernel
// refuses it to those that have such a filter already: if that is bob's, it makes devices
// for them, too.
func CanListen() bool {
	result := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the filter goes with the thread
		result <- listens()
	}()
	return <-result
}

// listens has this thread try it.
func listens() bool {
	// What libseccomp wants for notifications, Linux 5.7, fails for its lack of a filter.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH, 0)
	if errno != unix.EFAULT || unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != nil {
		return false
	}
	allow := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
	program := unix.SockFprog{Len: 1, Filter: &allow}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program))) //nolint:gosec // the call takes an address
	if errno != 0 {
		return false
	}
	_ = unix.Close(int(fd))
	return true
}
