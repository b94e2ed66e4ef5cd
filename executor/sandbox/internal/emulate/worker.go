package emulate

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot/owners"
)

// A worker answers one call after the other, on a thread of its own.
type worker struct {
	*shared
	caller
	layout statLayout // of the caller
}

// shared is what the workers of an emulation have in common.
type shared struct {
	calls map[callKey]handler
	ids   *identities // of an emulation of owners
	// Of an emulation of devices:
	keeper owners.Keeper
	marks  bool // the kernel makes marks of overlay format
	weak   bool // this process lacks CAP_MKNOD, so that its commands may: root will do

	stopped  int         // an eventfd that is readable from the end on
	starter  inode       // the program that executes the command
	executed atomic.Bool // whether it has

	mu  sync.Mutex
	err error
}

// newWorker returns a worker of this goroutine, which must end with it.
func newWorker(s *shared, fd, epoll int) (*worker, error) {
	// Never unlocked: the thread ends with the goroutine.
	runtime.LockOSThread()
	if err := blockSignals(); err != nil {
		return nil, err
	}
	w := &worker{shared: s, caller: caller{listener: listener{fd: fd, epoll: epoll, stopped: s.stopped}, root: -1}}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		if s.ids == nil { // a container's filter may refuse it, and no owner depends on it
			return w, nil
		}
		return nil, os.NewSyscallError("unshare", err)
	}
	unix.Umask(0) // this thread's only, from now on
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/", Err: err}
	}
	w.root = root
	return w, nil
}

// blockSignals keeps signals from this thread but those for what it does wrong itself. Go's
// runtime interrupts goroutines by signals: one that comes while a descriptor is sent as an
// answer has the kernel forget the descriptor, and tell the caller that it is 0.
func blockSignals() error {
	const bits = 8 * unsafe.Sizeof(unix.Sigset_t{}.Val[0])
	var set unix.Sigset_t
	for i := range set.Val {
		set.Val[i] = ^set.Val[i]
	}
	for _, own := range []syscall.Signal{unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGSEGV, unix.SIGTRAP} {
		set.Val[uintptr(own-1)/bits] &^= 1 << (uintptr(own-1) % bits)
	}
	return os.NewSyscallError("sigprocmask", unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil))
}

// work answers calls until the end.
func (w *worker) work() error {
	if w.root >= 0 {
		defer unix.Close(w.root)
	}
	for {
		r, err := w.next()
		if r == nil || err != nil {
			return err
		}
		a := passed
		if handle := w.calls[callKey{r.arch, r.nr}]; handle != nil && w.begun() {
			w.layout = nativeStat
			a = handle(w, r)
		}
		if a.sent {
			continue
		}
		got, err := w.send(a)
		if err != nil {
			return err
		}
		if !got && a.undo != nil {
			a.undo()
		}
	}
}

// begun reports whether the container executes a command already. Until then the
// calls are libcontainer's.
func (w *worker) begun() bool {
	if w.executed.Load() {
		return true
	}
	var st unix.Stat_t
	if err := unix.Stat(w.proc("exe"), &st); err != nil {
		return false
	}
	begun := inode{st.Dev, st.Ino} != w.starter
	if begun {
		w.executed.Store(true)
	}
	return begun
}

// inode names a file.
type inode struct{ dev, ino uint64 }

// callKey names a system call.
type callKey struct {
	arch   uint32
	number int32
}

// A handler answers one call.
type handler func(*worker, *request) answer
