package chroot

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/emulate"
)

// nodeMaker makes in a guard the device nodes that the command asks for, if its filter
// notifies of that.
type nodeMaker struct {
	ours, theirs *os.File // ends of a socket, by which the filter's descriptor comes
	emulation    *emulate.Emulation
}

func newNodeMaker() (*nodeMaker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	return &nodeMaker{ours: os.NewFile(uintptr(pair[0]), "nodes"), theirs: os.NewFile(uintptr(pair[1]), "nodes")}, nil
}

// start takes the descriptor that the process has sent. That process is the command by
// now; if it isn't, it has sent nothing.
func (m *nodeMaker) start() error {
	if err := m.theirs.Close(); err != nil {
		return err
	}
	var data [1]byte
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(m.ours.Fd()), data[:], control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("recvmsg", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) == 0 {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return fmt.Errorf("receive descriptor of the filter: %w", err)
	}
	m.emulation, err = emulate.AnswerDevices(fds[0])
	return err
}

// stop ends it when nobody asks any more.
func (m *nodeMaker) stop() error {
	err := m.ours.Close()
	if m.emulation != nil {
		err = errors.Join(err, m.emulation.Stop())
	}
	return err
}
