package emulate

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FuzzPath has a thread with a root directory of its own make a file by a path that lies
// anywhere in its memory, the next page to which isn't mapped. What a worker reads there,
// and the directory that it opens, must be what the kernel then finds: the file is made in
// that directory, and never outside of the root.
func FuzzPath(f *testing.F) {
	tr := startTraced(f, false)
	for _, path := range []string{
		"f", "a/f", "a/b/../f", "/a/b/f", "up/up/f", "out/f", "/out/f", "abs/a/f", "etc/f", "loop/f", "a/loop", "file/f", "file",
		"", "/", ".", "..", "a/.", "a/..", "a/f/", "a//f", "missing/f", "chain/f", "../../../../../../f", "./f",
		strings.Repeat("a/../", 700) + "f", strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("x/", 2047) + "f",
	} {
		for _, room := range []uint16{0, 1, pageSize} {
			f.Add([]byte(path), room, true, false)
			f.Add([]byte(path), room, false, true)
		}
	}
	f.Fuzz(func(t *testing.T, path []byte, room uint16, terminated, below bool) {
		if terminated {
			path = append(path, 0)
		}
		tr.check(t, path, int(room), below)
	})
}

// mapped is how much memory a path may lie in.
const mapped = 4 * pageSize

// traced is a thread whose calls are notified of, and the worker that is told.
type traced struct {
	root   string
	memory []byte // mapped bytes, behind which nothing is
	below  int    // a descriptor of a directory below the root
	calls  chan [2]uintptr
	result chan unix.Errno
	seen   chan seen
	// hostile has the thread find a /proc in its root, and its calls refused: the kernel
	// would follow where the worker may not go.
	hostile bool
}

// seen is what the worker found of a call.
type seen struct {
	text             string
	errRead, errOpen error
	parent           int
	name             string
}

// startTraced starts both. They end with the process.
func startTraced(f testing.TB, hostile bool) *traced {
	f.Helper()
	if unix.Geteuid() != 0 {
		f.Skip("only root can give a thread a root directory")
	}
	tr := &traced{root: f.TempDir(), hostile: hostile, calls: make(chan [2]uintptr), result: make(chan unix.Errno), seen: make(chan seen)}
	inRoot := func(name string) string { return filepath.Join(tr.root, name) }
	err := errors.Join(
		os.MkdirAll(inRoot("a/b"), 0o755), os.Mkdir(inRoot("proc"), 0o755), os.WriteFile(inRoot("file"), nil, 0o600),
		os.Symlink("..", inRoot("up")), os.Symlink("../../../../../..", inRoot("out")), os.Symlink("/", inRoot("abs")),
		os.Symlink("/etc", inRoot("etc")), os.Symlink("loop", inRoot("loop")), os.Symlink("chain2", inRoot("chain")),
		os.Symlink("a/b/../../up/a", inRoot("chain2")), os.Symlink("../../out", inRoot("a/b/out")), os.Symlink("/proc/self/root", inRoot("magic")),
	)
	if err != nil {
		f.Fatal(err)
	}
	if tr.below, err = unix.Open(inRoot("a/b"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		f.Fatal(err)
	}
	memory, err := unix.Mmap(-1, 0, mapped+pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		err = unix.Mprotect(memory[mapped:], unix.PROT_NONE)
	}
	if err != nil {
		f.Fatal(err)
	}
	tr.memory = memory[:mapped]
	listener := make(chan int)
	errs := make(chan error, 1)
	go func() {
		fd, err := tr.confine()
		errs <- err
		if err != nil {
			return
		}
		listener <- fd
		for call := range tr.calls {
			_, _, errno := unix.Syscall6(unix.SYS_MKNODAT, call[0], call[1], unix.S_IFREG|0o600, 0, 0, 0)
			tr.result <- errno
		}
	}()
	if err := <-errs; err != nil {
		f.Skip(err)
	}
	go tr.watch(<-listener)
	return tr
}

// confine gives this thread its root and a filter that notifies of mknodat, whose
// descriptor it returns.
func (tr *traced) confine() (int, error) {
	runtime.LockOSThread() // never unlocked
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return -1, err
	}
	if tr.hostile {
		err := errors.Join(
			unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("proc", filepath.Join(tr.root, "proc"), "proc", 0, ""),
		)
		if err != nil {
			return -1, err
		}
	}
	if err := errors.Join(unix.Chroot(tr.root), unix.Chdir("/a")); err != nil {
		return -1, err
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_MKNODAT, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	return int(fd), nil
}

// watch is the worker: it looks at each call, and leaves it to the kernel.
func (tr *traced) watch(fd int) {
	e, err := newEmulation(nil)
	if err != nil {
		panic(err)
	}
	epoll, err := e.watch(fd)
	if err != nil {
		panic(err)
	}
	w, err := newWorker(&e.shared, fd, epoll)
	if err != nil {
		panic(err)
	}
	for {
		r, err := w.next()
		if err != nil || r == nil {
			panic(err)
		}
		var s seen
		s.text, s.errRead = w.readString(r.args[1])
		s.parent, s.name, s.errOpen = w.newName(int32(r.args[0]), r.args[1])
		verdict := passed
		if tr.hostile {
			verdict = answer{errno: unix.EPERM}
		}
		if _, err := w.send(verdict); err != nil {
			panic(err)
		}
		tr.seen <- s
	}
}

// ask has the thread make a file by the path at the address, and returns what the worker
// found and what the kernel said.
func (tr *traced) ask(dir int, address uintptr) (seen, unix.Errno) {
	tr.calls <- [2]uintptr{uintptr(dir), address}
	s := <-tr.seen
	return s, <-tr.result
}

// address is where the memory begins.
func (tr *traced) address() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(tr.memory))) }

// check has the thread make a file by the path, at the end of its memory but for room.
func (tr *traced) check(t *testing.T, path []byte, room int, below bool) {
	t.Helper()
	start := max(0, mapped-len(path)-room)
	for i := range tr.memory {
		tr.memory[i] = 'x' // no end but the path's own
	}
	copy(tr.memory[start:], path)
	text, end, terminated := tr.expected(start)
	dir := unix.AT_FDCWD
	if below {
		dir = tr.below
	}
	// Behind the last byte of it, too.
	s, errno := tr.ask(dir, tr.address()+uintptr(start))
	if s.errOpen == nil {
		defer func() {
			if errno == 0 {
				_ = unix.Unlinkat(s.parent, s.name, 0)
			}
			_ = unix.Close(s.parent)
		}()
	}
	switch {
	case terminated && (s.errRead != nil || s.text != text):
		t.Errorf("read %q, %v, want %q", s.text, s.errRead, text)
	case !terminated && (!errors.Is(s.errRead, end) || errno != end):
		t.Errorf("reading failed with %v, the kernel's with %v, want %v", s.errRead, errno, end)
	}
	if s.errOpen != nil {
		if errno == 0 {
			t.Fatalf("the kernel made %q, in a directory that could not be opened: %v", text, s.errOpen)
		}
		return
	}
	tr.within(t, s.parent)
	var st unix.Stat_t
	if err := unix.Fstatat(s.parent, s.name, &st, unix.AT_SYMLINK_NOFOLLOW); errno == 0 && err != nil {
		t.Errorf("the kernel made %q, but not as %s: %v", text, s.name, err)
	}
}

// expected returns the path at the start, or why the kernel reads none.
func (tr *traced) expected(start int) (text string, end unix.Errno, terminated bool) {
	rest := tr.memory[start:]
	n := bytes.IndexByte(rest, 0)
	switch {
	case n >= 0 && n < unix.PathMax:
		return string(rest[:n]), 0, true
	case len(rest) >= unix.PathMax:
		return "", unix.ENAMETOOLONG, false
	}
	return "", unix.EFAULT, false
}
