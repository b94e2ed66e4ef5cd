package sandbox

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/emulate"
	"github.com/bobbuild/bob/executor/sandbox/internal/entry"
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

// filters are the compiled seccomp filters of containers. They may be used concurrently.
type filters struct {
	mu    sync.Mutex
	known map[filterKey]*filter.Filter
}

// A filterKey decides about a filter of the containers of one Runner.
type filterKey struct {
	open         bool   // it lets all calls through that it doesn't notify of
	capabilities string // else those of Docker's default profile for these
	emulated     bool   // it notifies of the calls that an emulation answers
}

// of returns the filter for the process. emulation, which may be nil, answers the calls
// that it notifies of. A process without filter has nil.
func (f *filters) of(p *Process, refused fallback, emulation *emulate.Emulation) (*filter.Filter, error) {
	if p.Insecure && emulation == nil {
		return nil, nil
	}
	key := filterKey{open: p.Insecure, emulated: emulation != nil}
	var capabilities []string
	if !p.Insecure {
		capabilities = p.capabilities(refused)
		key.capabilities = strings.Join(capabilities, " ")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.known[key]; known != nil {
		return known, nil
	}
	config, err := profile.OpenFilter()
	if !p.Insecure {
		config, err = profile.Filter(capabilities)
	}
	if err != nil {
		return nil, err
	}
	if emulation != nil {
		config = emulation.Filter(config)
	}
	compiled, err := filter.Compile(config)
	if err != nil {
		return nil, err
	}
	if f.known == nil {
		f.known = make(map[filterKey]*filter.Filter)
	}
	f.known[key] = compiled
	return compiled, nil
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
	process.ExtraFiles = entry.Files(theirs)
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
