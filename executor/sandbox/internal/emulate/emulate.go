package emulate

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// An Emulation answers system calls of one container in the kernel's place.
type Emulation struct {
	shared

	path     string // where libcontainer sends the descriptor of the filter
	listener *net.UnixListener
	dir      *os.File // of the listener, whose path may be too long for a socket
	answered []call
	threads  int // that answer

	workers sync.WaitGroup // the receiver is one
}

func newEmulation(calls []call) *Emulation {
	e := &Emulation{answered: calls, shared: shared{calls: map[callKey]handler{}}}
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
			w, err := newWorker(&e.shared, fd, epoll)
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
