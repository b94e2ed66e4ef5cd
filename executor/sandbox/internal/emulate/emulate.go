package emulate

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot/owners"
)

// User is whom the container's first process takes itself for.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary ones
}

// An Emulation answers system calls of one container in the kernel's place.
type Emulation struct {
	path     string // where libcontainer sends the descriptor of the filter
	listener *net.UnixListener
	dir      *os.File // of the listener, whose path may be too long for a socket
	stopped  int      // an eventfd that is readable from the end on
	answered []call
	calls    map[callKey]handler // of those that are answered
	threads  int                 // that answer
	ids      *identities         // of an emulation of owners
	// Of an emulation of devices:
	keeper owners.Keeper
	marks  bool // the kernel makes marks of overlay format
	weak   bool // this process lacks CAP_MKNOD, so that its commands may: root will do

	workers sync.WaitGroup // the receiver is one

	executed atomic.Bool // whether a command has been

	mu      sync.Mutex
	starter inode // the program that executes it
	err     error
}

// Start prepares to answer the calls of a container in which u is the user. It keeps
// a socket in dir, which nobody else may enter. The caller calls Stop when the
// container is gone.
func Start(dir string, u User) (*Emulation, error) {
	ids, err := newIdentities(u)
	if err != nil {
		return nil, fmt.Errorf("emulate root: %w", err)
	}
	e := newEmulation(emulatedCalls())
	e.ids, e.threads = ids, max(4, runtime.NumCPU())
	return e.listen(dir)
}

// callKey names a system call.
type callKey struct {
	arch   uint32
	number int32
}

func newEmulation(calls []call) *Emulation {
	e := &Emulation{answered: calls, calls: map[callKey]handler{}}
	for _, c := range calls {
		e.calls[callKey{cmp.Or(c.arch, auditArch), c.number}] = c.handle
	}
	return e
}

// listen begins to wait for the descriptor of the filter at a socket in dir.
func (e *Emulation) listen(dir string) (*Emulation, error) {
	if err := e.open(dir); err != nil {
		return nil, fmt.Errorf("emulate root: %w", err)
	}
	e.workers.Go(func() { e.fail(e.receive()) })
	return e, nil
}

// open opens what an emulation has that gets its descriptor from libcontainer.
func (e *Emulation) open(dir string) (err error) {
	if e.dir, err = os.Open(dir); err != nil {
		return err
	}
	e.path = filepath.Join("/proc/self/fd", strconv.Itoa(int(e.dir.Fd())), "seccomp")
	if e.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: e.path, Net: "unix"}); err != nil {
		return errors.Join(err, e.dir.Close())
	}
	if e.stopped, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return errors.Join(os.NewSyscallError("eventfd", err), e.listener.Close(), e.dir.Close())
	}
	return nil
}

// Stop waits until nothing more is answered and frees everything. It returns what
// went wrong in the meantime.
func (e *Emulation) Stop() error {
	_, err := unix.Write(e.stopped, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	err = os.NewSyscallError("write eventfd", err)
	if e.listener != nil {
		err = errors.Join(err, e.listener.Close(), e.dir.Close())
	}
	e.workers.Wait()
	return errors.Join(e.err, err, unix.Close(e.stopped))
}

// fail keeps the first error for Stop.
func (e *Emulation) fail(err error) {
	if err == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = fmt.Errorf("emulate root: %w", err)
	}
}

// receive waits for the descriptor of the container's filter and answers what comes
// from it until the end.
func (e *Emulation) receive() error {
	fd, err := e.accept()
	if err != nil || fd < 0 {
		return err
	}
	return e.answer(fd)
}

// answer answers what comes from the descriptor of a filter, which it closes.
func (e *Emulation) answer(fd int) error {
	if err := checkSizes(); err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	// Best on kernels that have it, 6.6: the two processes take turns.
	_ = unix.IoctlSetInt(fd, unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	epoll, err := e.watch(fd)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	var workers sync.WaitGroup
	for range e.threads {
		workers.Go(func() {
			w, err := newWorker(e, fd, epoll)
			if err == nil {
				err = w.work()
			}
			e.fail(err)
		})
	}
	workers.Wait()
	// What still waits gets ENOSYS.
	return errors.Join(unix.Close(epoll), unix.Close(fd))
}

// accept returns the descriptor of the filter, -1 if no container was started.
func (e *Emulation) accept() (int, error) {
	conn, err := e.listener.AcceptUnix()
	if errors.Is(err, net.ErrClosed) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	defer func() { _ = conn.Close() }()
	data, control := make([]byte, 1<<16), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(data, control)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("receive descriptor of the filter: %d control messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, fmt.Errorf("receive descriptor of the filter: %w", err)
	}
	return fds[0], nil
}

// watch returns an epoll descriptor by which one worker at a time is told of a
// call, and all of them of the end.
func (e *Emulation) watch(fd int) (int, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("epoll_create", err)
	}
	for fd, events := range map[int]uint32{fd: unix.EPOLLIN | unix.EPOLLONESHOT, e.stopped: unix.EPOLLIN} {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
			return -1, errors.Join(os.NewSyscallError("epoll_ctl", err), unix.Close(epoll))
		}
	}
	return epoll, nil
}

// Filter returns a filter that notifies of the calls which the emulation answers, and
// otherwise does what filter does.
func (e *Emulation) Filter(filter *configs.Seccomp) *configs.Seccomp {
	changed := notifying(filter, e.answered)
	changed.ListenerPath = e.path
	return changed
}

// FilterDevices returns a filter that notifies of the calls which AnswerDevices answers,
// and otherwise does what filter does.
func FilterDevices(filter *configs.Seccomp) *configs.Seccomp { return notifying(filter, deviceCalls()) }

func notifying(filter *configs.Seccomp, calls []call) *configs.Seccomp {
	changed := *filter
	changed.Syscalls = nil
	names := map[string]bool{}
	for _, c := range calls {
		if names[c.name] {
			continue // a rule counts for the call of that name of every architecture
		}
		names[c.name] = true
		changed.Syscalls = append(changed.Syscalls, c.rules()...)
	}
	for _, rule := range filter.Syscalls {
		if !names[rule.Name] {
			changed.Syscalls = append(changed.Syscalls, rule)
		}
	}
	// Otherwise a signal may interrupt calls that are never interrupted.
	if seccomp.FlagSupported(specs.LinuxSeccompFlagWaitKillableRecv) == nil {
		changed.Flags = append(slices.Clone(filter.Flags), specs.LinuxSeccompFlagWaitKillableRecv)
	}
	return &changed
}
