package sandbox

import (
	"fmt"
	"os"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/emulate"
	"github.com/bobbuild/bob/executor/sandbox/internal/filter"
	"github.com/bobbuild/bob/executor/sandbox/internal/profile"
)

// An entrance is what the first process of a container gets between the time when
// libcontainer has prepared it and the time when it executes the command: a seccomp
// filter, and somebody who answers the calls that the filter notifies of.
type entrance struct {
	filter    *filter.Filter     // nil lets everything through
	emulation *emulate.Emulation // nil if there is nobody
}

// newEntrance returns the entrance of a container with the seccomp filter and the
// emulation, both of which may be nil.
func newEntrance(config *configs.Seccomp, emulation *emulate.Emulation) (e entrance, err error) {
	if emulation != nil {
		if config == nil {
			if config, err = profile.OpenFilter(); err != nil {
				return e, err
			}
		}
		config = emulation.Filter(config)
	}
	e.emulation = emulation
	if config != nil {
		e.filter, err = filter.Compile(config)
	}
	return e, err
}

// pass starts the process in the container and has it pass the entrance. After an error
// the process may run, but it hasn't executed the command.
func (e entrance) pass(container *libcontainer.Container, process *libcontainer.Process) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socketpair", err)
	}
	socket, theirs := os.NewFile(uintptr(pair[0]), "filter"), os.NewFile(uintptr(pair[1]), "filter")
	defer func() { _ = socket.Close() }()
	process.ExtraFiles = []*os.File{theirs} // as filterSocket
	err = container.Start(process)
	_ = theirs.Close()
	if err != nil {
		return err
	}
	if e.filter != nil {
		listener, err := e.filter.Send(socket)
		if err != nil {
			return err
		}
		if err := e.answer(process, listener); err != nil {
			return err
		}
	}
	return container.Exec()
}

// answer has the emulation answer the calls that the filter notifies of.
func (e entrance) answer(process *libcontainer.Process, listener int) error {
	if e.emulation == nil {
		return nil
	}
	pid, err := process.Pid()
	if err != nil {
		return fmt.Errorf("find process of the container: %w", err)
	}
	return e.emulation.Answer(listener, pid)
}
