package emulate

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A caller is the process that waits for an answer: its memory, and the files that it can
// name. It is looked at by a thread whose root and working directory are for a moment those
// of the caller.
type caller struct {
	listener
	root   int // descriptor of the true root directory; -1 if the thread can't leave it
	buffer [unix.PathMax]byte
}

// proc returns the path of a file of the caller in /proc.
func (c *caller) proc(name string) string {
	return "/proc/" + strconv.Itoa(int(c.request.pid)) + "/" + name
}

// pageSize divides the size of a page on every machine.
const pageSize = 4096

// readString returns the string at the address in the caller's memory, which is
// shorter than PATH_MAX.
func (c *caller) readString(address uint64) (string, error) {
	for n := 0; n < len(c.buffer); {
		// What lies behind the end of the page may not be mapped.
		size := min(len(c.buffer)-n, pageSize-int(address%pageSize))
		got, err := c.read(address, c.buffer[n:n+size])
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(c.buffer[n:n+got], 0); end >= 0 {
			return string(c.buffer[:n+end]), nil
		}
		n += got
		address += uint64(got)
	}
	return "", unix.ENAMETOOLONG
}

// read fills b from the caller's memory, or returns an error.
func (c *caller) read(address uint64, b []byte) (int, error) {
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(len(b))
	n, err := unix.ProcessVMReadv(int(c.request.pid), local, []unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}, 0)
	if err == unix.EPERM { //nolint:errorlint // a bare error of the kernel
		n, err = c.readFile(address, b) // of which the user for files decides
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
func (c *caller) readFile(address uint64, b []byte) (int, error) {
	mem, err := unix.Open(c.proc("mem"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(mem)
	if !c.valid() {
		return 0, unix.ESRCH
	}
	return unix.Pread(mem, b, int64(address))
}

// write copies b into the caller's memory.
func (c *caller) write(address uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	// By a descriptor, because the process ID may be another's any time.
	mem, err := unix.Open(c.proc("mem"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return unix.EFAULT
	}
	defer unix.Close(mem)
	if !c.valid() {
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
func (c *caller) open(dir int32, path string, flags uint64) (int, error) {
	fd, err := c.openPath(dir, path, flags|unix.O_PATH)
	if err != nil {
		if n, ok := standardFile(path); ok && flags&unix.O_NOFOLLOW == 0 {
			return c.openDescriptor(n)
		}
		return -1, err
	}
	return fd, nil
}

// openDescriptor opens what the caller's descriptor is of, its working directory for
// AT_FDCWD.
func (c *caller) openDescriptor(n int32) (int, error) {
	fd, err := unix.Open(c.directory(n), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, unix.EBADF
	}
	if !c.valid() {
		_ = unix.Close(fd)
		return -1, unix.ESRCH
	}
	return fd, nil
}

// directory returns the path of a directory by which the caller names it.
func (c *caller) directory(dir int32) string {
	if dir == unix.AT_FDCWD {
		return c.proc("cwd")
	}
	return c.proc("fd/" + strconv.Itoa(int(dir)))
}

// maxTries is how often a path is looked up that renames get in the way of.
const maxTries = 100

// openPath is open of a path.
func (c *caller) openPath(dir int32, path string, flags uint64) (int, error) {
	how := &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	root, err := unix.Open(c.proc("root"), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	var fd int
	switch {
	case strings.HasPrefix(path, "/"):
		fd, err = openIn(root, path, how)
	case c.root < 0:
		if path, err = c.absolute(dir, path); err == nil {
			fd, err = openIn(root, path, how)
		}
	default:
		fd, err = c.openRelative(root, dir, path, how)
	}
	if err != nil {
		return -1, err
	}
	if !c.valid() {
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
func (c *caller) absolute(dir int32, path string) (string, error) {
	root, err := os.Readlink(c.proc("root"))
	if err != nil {
		return "", err
	}
	base, err := os.Readlink(c.directory(dir))
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
func (c *caller) openRelative(root int, dir int32, path string, how *unix.OpenHow) (int, error) {
	base, err := unix.Open(c.directory(dir), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, unix.EBADF
	}
	defer unix.Close(base)
	defer c.comeBack()
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
func (c *caller) comeBack() {
	err := unix.Fchdir(c.root)
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

// openAt opens the file of a call with a path and AT_ flags.
func (c *caller) openAt(dir int32, path, flags uint64) (int, error) {
	if flags&unix.AT_EMPTY_PATH != 0 && c.emptyPath(path) {
		return c.openDescriptor(dir)
	}
	name, err := c.readString(path)
	if err != nil {
		return -1, err
	}
	if name == "" {
		return -1, unix.ENOENT
	}
	return c.open(dir, name, noFollow(flags))
}

// emptyPath reports whether the path is empty, or none.
func (c *caller) emptyPath(path uint64) bool {
	var b [1]byte
	if path == 0 {
		return true
	}
	_, err := c.read(path, b[:])
	return err == nil && b[0] == 0
}

// noFollow converts an AT_ flag.
func noFollow(flags uint64) uint64 {
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		return unix.O_NOFOLLOW
	}
	return 0
}

// newName opens the directory in which the caller is about to make what path names, and
// returns the name there.
func (c *caller) newName(dir int32, path uint64) (parent int, name string, err error) {
	name, err = c.readString(path)
	if err != nil {
		return -1, "", err
	}
	name = strings.TrimRight(name, "/")
	end := strings.LastIndexByte(name, '/') + 1
	above, name := name[:end], name[end:]
	switch name {
	case "", ".", "..":
		return -1, "", unix.EEXIST
	}
	if above == "" {
		above = "."
	}
	parent, err = c.openPath(dir, above, unix.O_PATH|unix.O_DIRECTORY)
	return parent, name, err
}

// defaultUmask is the umask of containers.
const defaultUmask = 0o022

// umask returns the umask of the caller.
func (c *caller) umask() uint32 {
	status, err := os.ReadFile(c.proc("status"))
	if err != nil {
		return defaultUmask
	}
	return umaskOf(string(status))
}

func umaskOf(status string) uint32 {
	mask, err := strconv.ParseUint(statusLine(status, "Umask"), 8, 12)
	if err != nil {
		return defaultUmask
	}
	return uint32(mask)
}

// statusLine returns the line called name of a process's status (proc_pid_status(5)).
func statusLine(status, name string) string {
	_, line, _ := strings.Cut(status, "\n"+name+":\t")
	line, _, _ = strings.Cut(line, "\n")
	return line
}
