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

// Devices returns what makes the device nodes that a container asks for and that the
// kernel refuses it, being in a user namespace, by the keeper. marks has the kernel decide
// about the character device 0:0, the mark of a removed name in overlay format, for whoever
// makes overlays. It is otherwise as Owners.
func Devices(keeper owners.Keeper, marks bool) (*Emulation, error) {
	e, err := newEmulation(deviceCalls())
	if err != nil {
		return nil, err
	}
	e.threads, e.keeper, e.marks = 1, keeper, marks
	own, err := os.ReadFile("/proc/self/status")
	e.weak = err == nil && !makesDevices(string(own), "CapPrm")
	e.executed.Store(true) // what libcontainer makes it makes before there is a filter
	return e, nil
}

// AnswerDevices makes the device nodes that processes ask for whose filter, loaded
// already, has the descriptor listener, which it closes. It makes them as package owners
// does with [owners.Harmless]. The caller calls Stop when these processes are gone.
func AnswerDevices(listener int) (*Emulation, error) {
	e, err := Devices(owners.Harmless, false)
	if err != nil {
		return nil, errors.Join(err, unix.Close(listener))
	}
	e.begin(listener)
	return e, nil
}

// Owners returns what answers the calls of a container in which u is the user. The caller
// loads the filter that Filter returns into the container, calls Answer, and calls Stop
// when the container is gone.
func Owners(u User) (*Emulation, error) {
	ids, err := newIdentities(u)
	if err != nil {
		return nil, fmt.Errorf("emulate root: %w", err)
	}
	e, err := newEmulation(emulatedCalls())
	if err != nil {
		return nil, err
	}
	e.ids, e.threads = ids, max(4, runtime.NumCPU())
	return e, nil
}

// FilterDevices returns a filter that notifies of the calls which AnswerDevices answers,
// and otherwise does what config does.
func FilterDevices(config *configs.Seccomp) *configs.Seccomp { return notifying(config, deviceCalls()) }
