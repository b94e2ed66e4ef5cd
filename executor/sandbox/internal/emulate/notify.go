package emulate

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// request is struct seccomp_notif.
type request struct {
	id   uint64
	pid  uint32 // of the thread
	_    uint32
	nr   int32
	arch uint32
	_    uint64 // instruction pointer
	args [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	errno int32 // negative
	flags uint32
}

// descriptor is struct seccomp_notif_addfd.
type descriptor struct {
	id       uint64
	flags    uint32
	source   uint32
	_        uint32
	newFlags uint32
}

// seccompData is the size of struct seccomp_data.
const seccompData = 64

// checkSizes returns an error if the kernel's structures are not those above.
func checkSizes() error {
	var sizes struct{ request, response, data uint16 }
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes))) //nolint:gosec // as the call wants it
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	if uintptr(sizes.request) != unsafe.Sizeof(request{}) || uintptr(sizes.response) != unsafe.Sizeof(response{}) || sizes.data != seccompData {
		return fmt.Errorf("the kernel's seccomp notifications have other sizes than those of Linux 5.0 to 6.18: %+v", sizes)
	}
	return nil
}

// ioctl is ioctl(2) with a pointer to one of the structures.
func ioctl[T any](fd int, number uintptr, arg *T) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), number, uintptr(unsafe.Pointer(arg))) //nolint:gosec // what the number says
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// A listener is where calls are notified of.
type listener struct {
	fd, epoll int
	stopped   int // readable from the end on
	request   request
}

// next waits for a call. It returns nil at the end.
func (l *listener) next() (*request, error) {
	var events [2]unix.EpollEvent
	for {
		n, err := unix.EpollWait(l.epoll, events[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("epoll_wait", err)
		}
		for _, event := range events[:n] {
			if int(event.Fd) == l.stopped || event.Events&unix.EPOLLIN == 0 {
				return nil, nil
			}
		}
		l.request = request{}
		err = ioctl(l.fd, unix.SECCOMP_IOCTL_NOTIF_RECV, &l.request)
		if errRearm := l.rearm(); errRearm != nil {
			return nil, errRearm
		}
		if err == nil {
			return &l.request, nil
		}
		if !errors.Is(err, unix.ENOENT) { // the caller was killed
			return nil, os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_RECV", err)
		}
	}
}

// rearm lets another worker be told of the next call.
func (l *listener) rearm() error {
	event := &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(l.fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_MOD, l.fd, event))
}

// valid reports whether the caller still waits for the answer. What was opened by
// its process ID before is then its own.
func (l *listener) valid() bool {
	return ioctl(l.fd, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, &l.request.id) == nil
}

// send answers the call. It reports whether the caller got the answer: one that was
// killed or interrupted doesn't, and to the latter the call has not happened.
func (l *listener) send(a answer) (bool, error) {
	r := response{id: l.request.id, value: a.value, errno: -int32(a.errno)}
	if a.pass {
		r = response{id: l.request.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	}
	err := ioctl(l.fd, unix.SECCOMP_IOCTL_NOTIF_SEND, &r)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, os.NewSyscallError("ioctl SECCOMP_IOCTL_NOTIF_SEND", err)
}

// sendDescriptor answers the call with a copy of the descriptor fd, close-on-exec
// if cloexec is set.
func (l *listener) sendDescriptor(fd int, cloexec bool) error {
	d := descriptor{id: l.request.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, source: uint32(fd)}
	if cloexec {
		d.newFlags = unix.O_CLOEXEC
	}
	return ioctl(l.fd, unix.SECCOMP_IOCTL_NOTIF_ADDFD, &d)
}

// sendSuccess answers the call with 0.
func (l *listener) sendSuccess() error {
	got, err := l.send(answer{})
	if err == nil && !got {
		err = unix.ENOENT
	}
	return err
}
