package filter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Send has the process load the filter that waits for it at the other end of the socket,
// as package entry has it, and returns when it has. It returns what [Filter.Load] returns.
// It fails if that process ends: no context ends it, the caller kills the process.
func (f *Filter) Send(socket *os.File) (listener int, err error) {
	order := binary.NativeEndian.AppendUint64(nil, uint64(f.flags))
	for _, i := range f.program {
		order = binary.NativeEndian.AppendUint16(order, i.Code)
		order = append(order, i.Jt, i.Jf)
		order = binary.NativeEndian.AppendUint32(order, i.K)
	}
	listener, err = exchange(socket, order)
	if err != nil {
		return -1, fmt.Errorf("load seccomp filter: %w", err)
	}
	return listener, nil
}

// exchange sends an order through the socket and reads the answer.
func exchange(socket *os.File, order []byte) (listener int, err error) {
	fd := int(socket.Fd())
	if err := unix.Sendto(fd, order, unix.MSG_NOSIGNAL, nil); err != nil {
		return -1, os.NewSyscallError("send", err)
	}
	var data [4]byte
	control := make([]byte, unix.CmsgSpace(4))
	var n, used int
	for {
		n, used, _, _, err = unix.Recvmsg(fd, data[:], control, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case err != nil:
		return -1, os.NewSyscallError("recvmsg", err)
	case n != len(data):
		return -1, errors.New("the process has ended")
	}
	if errno := unix.Errno(binary.NativeEndian.Uint32(data[:])); errno != 0 {
		return -1, os.NewSyscallError("seccomp", errno)
	}
	messages, err := unix.ParseSocketControlMessage(control[:used])
	if err != nil || len(messages) == 0 {
		return -1, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, err
	}
	return fds[0], nil
}
