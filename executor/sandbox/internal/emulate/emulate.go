package emulate

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/filter"
)

// An Emulation answers system calls of one container in the kernel's place.
type Emulation struct {
	shared

	answered []call
	threads  int // that answer

	workers sync.WaitGroup
}

func newEmulation(calls []call) (*Emulation, error) {
	stopped, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("emulate root: %w", os.NewSyscallError("eventfd", err))
	}
	e := &Emulation{answered: calls, shared: shared{calls: map[callKey]handler{}, stopped: stopped}}
	for _, c := range calls {
		e.calls[callKey{cmp.Or(c.arch, auditArch), c.number}] = c.handle
	}
	return e, nil
}

// Answer begins to answer the calls of the filter with the descriptor listener, which the
// Emulation closes. starter is the process that executes the command: what it calls before
// that, the kernel answers. Answer is called once at most.
func (e *Emulation) Answer(listener, starter int) error {
	if e.ids != nil {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join("/proc", strconv.Itoa(starter), "exe"), &st); err != nil {
			return errors.Join(fmt.Errorf("emulate root: find program of the container: %w", err), unix.Close(listener))
		}
		e.starter = inode{st.Dev, st.Ino}
	}
	e.begin(listener)
	return nil
}

// begin begins to answer what comes from the descriptor of a filter.
func (e *Emulation) begin(listener int) {
	e.workers.Go(func() { e.fail(e.answer(listener)) })
}

// Stop waits until nothing more is answered and frees everything. It returns what
// went wrong in the meantime.
func (e *Emulation) Stop() error {
	_, err := unix.Write(e.stopped, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	err = os.NewSyscallError("write eventfd", err)
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
// otherwise does what config does.
func (e *Emulation) Filter(config *configs.Seccomp) *configs.Seccomp {
	return notifying(config, e.answered)
}

func notifying(config *configs.Seccomp, calls []call) *configs.Seccomp {
	changed := *config
	changed.Syscalls = nil
	names := map[string]bool{}
	for _, c := range calls {
		if names[c.name] {
			continue // a rule counts for the call of that name of every architecture
		}
		names[c.name] = true
		changed.Syscalls = append(changed.Syscalls, c.rules()...)
	}
	for _, rule := range config.Syscalls {
		if !names[rule.Name] {
			changed.Syscalls = append(changed.Syscalls, rule)
		}
	}
	// Otherwise a signal may interrupt calls that are never interrupted.
	if filter.WaitsKillable() {
		changed.Flags = append(slices.Clone(config.Flags), specs.LinuxSeccompFlagWaitKillableRecv)
	}
	return &changed
}
