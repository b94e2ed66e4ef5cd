package emulate

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/bobbuild/bob/snapshot/owners"
)

// StartDevices prepares to make the device nodes that a container asks for and that the
// kernel refuses it, being in a user namespace, by the keeper. marks has the kernel decide
// about the character device 0:0, the mark of a removed name in overlay format, for whoever
// makes overlays. It is otherwise as Start.
func StartDevices(dir string, keeper owners.Keeper, marks bool) (*Emulation, error) {
	e := newDevices(keeper)
	e.marks = marks
	return e.listen(dir)
}

// AnswerDevices makes the device nodes that processes ask for whose filter, loaded
// already, has the descriptor listener, which it closes. It makes them as package owners
// does with [owners.Harmless]. The caller calls Stop when these processes are gone.
func AnswerDevices(listener int) (*Emulation, error) {
	e := newDevices(owners.Harmless)
	var err error
	if e.stopped, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(listener))
	}
	e.workers.Go(func() { e.fail(e.answer(listener)) })
	return e, nil
}

func newDevices(k owners.Keeper) *Emulation {
	e := newEmulation(deviceCalls())
	e.threads, e.keeper = 1, k
	own, err := os.ReadFile("/proc/self/status")
	e.weak = err == nil && !makesDevices(string(own), "CapPrm")
	e.executed.Store(true) // what libcontainer makes it makes before there is a filter
	return e
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

// FilterDevices returns a filter that notifies of the calls which AnswerDevices answers,
// and otherwise does what filter does.
func FilterDevices(filter *configs.Seccomp) *configs.Seccomp { return notifying(filter, deviceCalls()) }
