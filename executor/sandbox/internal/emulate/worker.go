package emulate

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// answer is what a call returns. The zero value is success.
type answer struct {
	value int64
	errno unix.Errno
	// pass leaves the call to the kernel.
	pass bool
	// sent says that the caller has its answer already.
	sent bool
	// undo is called if the caller doesn't get it.
	undo func()
}

// passed is the answer to whatever is not for the emulation to decide: then the
// kernel finds the same error, or does what needs no other ID.
var passed = answer{pass: true}

// refusal returns the answer for an error of a system call.
func refusal(err error) answer {
	errno := unix.EIO                  // of a damaged record
	if e, ok := err.(unix.Errno); ok { //nolint:errorlint // those are never wrapped here
		errno = e
	}
	return answer{errno: errno}
}

// A worker answers one call after the other, on a thread of its own whose root and
// working directory are for a moment those of the caller.
type worker struct {
	*Emulation
	fd, epoll int
	root      int // descriptor of the true root directory; -1 if the thread can't leave it
	request   request
	layout    statLayout // of the caller
	buffer    [unix.PathMax]byte
}

// newWorker returns a worker of this goroutine, which must end with it.
func newWorker(e *Emulation, fd, epoll int) (*worker, error) {
	// Never unlocked: the thread ends with the goroutine.
	runtime.LockOSThread()
	w := &worker{Emulation: e, fd: fd, epoll: epoll, root: -1}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		if e.ids == nil { // a container's filter may refuse it, and no owner depends on it
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
	w.mu.Lock()
	defer w.mu.Unlock()
	program := inode{st.Dev, st.Ino}
	if w.starter == (inode{}) {
		w.starter = program
	}
	w.executed.Store(program != w.starter)
	return program != w.starter
}

// inode names a file.
type inode struct{ dev, ino uint64 }

// proc returns the path of a file of the caller in /proc.
func (w *worker) proc(name string) string {
	return "/proc/" + strconv.Itoa(int(w.request.pid)) + "/" + name
}

// pageSize divides that of every machine.
const pageSize = 4096

// readString returns the string at the address in the caller's memory, which is
// shorter than PATH_MAX.
func (w *worker) readString(address uint64) (string, error) {
	for n := 0; n < len(w.buffer); {
		// What lies behind the end of the page may not be mapped.
		size := min(len(w.buffer)-n, pageSize-int(address%pageSize))
		got, err := w.read(address, w.buffer[n:n+size])
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(w.buffer[n:n+got], 0); end >= 0 {
			return string(w.buffer[:n+end]), nil
		}
		n += got
		address += uint64(got)
	}
	return "", unix.ENAMETOOLONG
}

// read fills b from the caller's memory, or returns an error.
func (w *worker) read(address uint64, b []byte) (int, error) {
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(int(w.request.pid), local, []unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}, 0)
	if err == unix.EPERM { //nolint:errorlint // a bare error of the kernel
		n, err = w.readFile(address, b) // of which the user for files decides
	}
	if err != nil {
		return 0, err
	}
	if n < len(b) {
		return 0, unix.EFAULT
	}
	return n, nil
}

// readFile is read by the file of the caller's memory.
func (w *worker) readFile(address uint64, b []byte) (int, error) {
	mem, err := unix.Open(w.proc("mem"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(mem)
	if !w.valid() {
		return 0, unix.ESRCH
	}
	return unix.Pread(mem, b, int64(address))
}

// write copies b into the caller's memory.
func (w *worker) write(address uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	// By a descriptor, because the process ID may be another's any time.
	mem, err := unix.Open(w.proc("mem"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return unix.EFAULT
	}
	defer unix.Close(mem)
	if !w.valid() {
		return unix.ESRCH
	}
	if n, err := unix.Pwrite(mem, b, int64(address)); err != nil || n < len(b) {
		return unix.EFAULT
	}
	return nil
}

// bytesOf returns the memory of v.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) //nolint:gosec // of v, and as long as it
}

// open opens the file that the caller means by a path below the directory dir, with
// the flags and O_PATH. It leads nowhere that the caller's own call could not lead:
// the kernel resolves it with the caller's root and working directory. But no link
// of /proc is followed, which might be to this process's files.
func (w *worker) open(dir int32, path string, flags uint64) (int, error) {
	fd, err := w.openPath(dir, path, flags|unix.O_PATH)
	if err != nil {
		if n, ok := standardFile(path); ok && flags&unix.O_NOFOLLOW == 0 {
			return w.openDescriptor(n)
		}
		return -1, err
	}
	return fd, nil
}

// openDescriptor opens what the caller's descriptor is of, its working directory for
// AT_FDCWD.
func (w *worker) openDescriptor(n int32) (int, error) {
	fd, err := unix.Open(w.directory(n), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, unix.EBADF
	}
	if !w.valid() {
		_ = unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// directory returns the path of a directory by which the caller names it.
func (w *worker) directory(dir int32) string {
	if dir == unix.AT_FDCWD {
		return w.proc("cwd")
	}
	return w.proc("fd/" + strconv.Itoa(int(dir)))
}

// maxTries is how often a path is looked up that renames get in the way of.
const maxTries = 100

// openPath is open of a path.
func (w *worker) openPath(dir int32, path string, flags uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	root, err := unix.Open(w.proc("root"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	var fd int
	switch {
	case strings.HasPrefix(path, "/"):
		fd, err = openIn(root, path, how)
	case w.root < 0:
		if path, err = w.absolute(dir, path); err == nil {
			fd, err = openIn(root, path, how)
		}
	default:
		fd, err = w.openRelative(root, dir, path, how)
	}
	if err != nil {
		return -1, err
	}
	if !w.valid() {
		_ = unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// openIn opens the path as if root were the root directory.
func openIn(root int, path string, how *unix.OpenHow) (int, error) {
	how.Resolve |= unix.RESOLVE_IN_ROOT
	fd, err := unix.Openat2(root, path, how)
	for try := 0; err == unix.EAGAIN && try < maxTries; try++ {
		fd, err = unix.Openat2(root, path, how)
	}
	return fd, err
}

// absolute returns the path of a relative one from the caller's root, whatever renames do
// meanwhile: nothing above that root can be reached by it. It is for a thread that can't
// leave its own root, and knows where in it the caller's is.
func (w *worker) absolute(dir int32, path string) (string, error) {
	root, err := os.Readlink(w.proc("root"))
	if err != nil {
		return "", err
	}
	base, err := os.Readlink(w.directory(dir))
	if err != nil {
		return "", unix.EBADF
	}
	below, ok := strings.CutPrefix(base, strings.TrimSuffix(root, "/"))
	if !ok || below != "" && below[0] != '/' {
		return "", unix.ENOENT
	}
	return below + "/" + path, nil
}

// openRelative is openPath of a path that starts at a directory below the caller's
// root. Only a thread with that root can go up from there and not above it.
func (w *worker) openRelative(root int, dir int32, path string, how *unix.OpenHow) (int, error) {
	base, err := unix.Open(w.directory(dir), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, unix.EBADF
	}
	defer unix.Close(base)
	defer w.comeBack()
	if err := unix.Fchdir(root); err != nil {
		return -1, err
	}
	if err := unix.Chroot("."); err != nil {
		return -1, err
	}
	if err := unix.Fchdir(base); err != nil {
		return -1, err
	}
	return unix.Openat2(unix.AT_FDCWD, path, how)
}

// comeBack gives this thread its own root again. A thread that can't come back must not go on.
func (w *worker) comeBack() {
	err := unix.Fchdir(w.root)
	if err == nil {
		err = unix.Chroot(".")
	}
	if err != nil {
		panic(fmt.Sprintf("emulate root: return to the own root directory: %v", err))
	}
}

// standardFile returns the descriptor of the caller that a path of the usual form
// stands for.
func standardFile(path string) (int32, bool) {
	switch path {
	case "/dev/stdin":
		return 0, true
	case "/dev/stdout":
		return 1, true
	case "/dev/stderr":
		return 2, true
	}
	for _, prefix := range []string{"/dev/fd/", "/proc/self/fd/"} {
		if number, ok := strings.CutPrefix(path, prefix); ok {
			n, err := strconv.ParseInt(number, 10, 32)
			return int32(n), err == nil && n >= 0
		}
	}
	return 0, false
}
