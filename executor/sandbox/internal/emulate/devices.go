package emulate

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot/owners"
)

// StartDevices prepares to make the device nodes that a container asks for and that the
// kernel refuses it, being in a user namespace: as package owners does with
// [owners.Devices]. It is otherwise as Start.
func StartDevices(dir string) (*Emulation, error) {
	return newDevices(owners.Devices).listen(dir)
}

// AnswerDevices makes the device nodes that processes ask for whose filter, loaded
// already, has the descriptor listener, which it closes. It makes them as package owners
// does with [owners.Harmless]. The caller calls Stop when these processes are gone.
func AnswerDevices(listener int) (*Emulation, error) {
	e := newDevices(owners.Harmless)
	var err error
	if e.stopped, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(listener))
	}
	e.workers.Go(func() { e.fail(e.answer(listener)) })
	return e, nil
}

func newDevices(k owners.Keeper) *Emulation {
	e := newEmulation(deviceCalls())
	e.threads, e.keeper = 1, k
	e.executed.Store(true) // what libcontainer makes it makes before there is a filter
	return e
}

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

// A caller is what the kernel says of the one that waits for an answer.
type caller struct {
	uid, gid uint32 // of new files
	umask    uint32
	capable  bool // of making devices, CAP_MKNOD
}

func (w *worker) caller() (*caller, error) {
	b, err := os.ReadFile(w.proc("status"))
	if err != nil {
		return nil, err
	}
	if !w.valid() {
		return nil, unix.ESRCH
	}
	status := string(b)
	c := &caller{umask: umaskOf(status)}
	for name, to := range map[string]*uint32{"Uid": &c.uid, "Gid": &c.gid} {
		ids := strings.Fields(statusLine(status, name)) // real, effective, saved, of files
		if len(ids) != 4 {
			return nil, unix.EPERM
		}
		n, err := strconv.ParseUint(ids[filesID], 10, 32)
		if err != nil {
			return nil, err
		}
		*to = uint32(n)
	}
	powers, err := strconv.ParseUint(statusLine(status, "CapEff"), 16, 64)
	c.capable = powers>>unix.CAP_MKNOD&1 != 0
	return c, err
}

// as calls f with the caller's user and group for files.
func (c *caller) as(f func() error) (err error) {
	if c.uid == 0 && c.gid == 0 {
		return f()
	}
	if err := unix.Setfsgid(int(c.gid)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Setfsgid(0)) }()
	if err := unix.Setfsuid(int(c.uid)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Setfsuid(0)) }()
	return f()
}

// mknodDevice makes a device. Other files are the kernel's to make.
func (w *worker) mknodDevice(dir int32, path, mode, dev uint64) answer {
	kind := uint32(mode) & unix.S_IFMT
	if kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return passed
	}
	c, err := w.caller()
	// The character device 0:0 is the mark of a removed name, which overlayfs refuses too.
	if err != nil || !c.capable || kind == unix.S_IFCHR && uint32(dev) == 0 {
		return answer{errno: unix.EPERM}
	}
	b := &birth{}
	if b.parent, b.name, err = w.newName(dir, path); err != nil {
		return passed
	}
	defer b.close()
	permissions := uint32(mode) & 0o7777 &^ c.umask
	err = c.as(func() error { return w.makeDevice(b, kind|permissions, dev&(1<<32-1)) })
	if err == unix.ENOTSUP { //nolint:errorlint // a bare error of the kernel
		err = unix.EPERM // a file system that no image is made of
	}
	if err != nil {
		return refusal(err)
	}
	return w.born(b, nil, 0, w.sendSuccess)
}

func (w *worker) makeDevice(b *birth, mode uint32, dev uint64) error {
	if err := w.keeper.Mknodat(b.parent, b.name, mode, dev); err != nil {
		return err
	}
	// This thread's umask may count.
	return w.keeper.Fchmodat(b.parent, b.name, mode)
}
