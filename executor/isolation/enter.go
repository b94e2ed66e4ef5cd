package isolation

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// Options say which namespaces Enter makes.
type Options struct {
	// Rootless has root give up its powers over the machine: the process
	// enters a user namespace, in which all IDs stay the same. For anyone
	// but root that is the only way and Rootless makes no difference.
	Rootless bool
	// Isolation is the one that is wanted; "" is Auto.
	Isolation Kind
}

// Enter finds the best mode that the machine allows, by trying, and enters it. For
// one with namespaces it re-executes the process, with the same arguments and
// environment, as root of a user and a mount namespace of its own; for root without
// Rootless, of a mount namespace only, if the machine allows that. It then returns
// in the inner process. In the outer one
// it returns only if that fails: otherwise it forwards SIGINT, SIGTERM, SIGHUP
// and SIGQUIT to the inner process, and exits with its status, which is 128+n
// if signal n killed it. The inner process is killed when the outer one dies. For
// other modes it returns in the process that called it, in which nothing has changed.
//
// It must be called from the main goroutine, after sandbox.Init and before anything
// that should not happen twice, such as reading standard input.
//
// In the inner process UID 0 is the user and the IDs from 1 up are those that
// /etc/subuid and /etc/subgid give him, if he has a range; no mount reaches the
// outside; cgroup file systems are read-only; and logrus, which libraries under this
// package write to, is silent.
//
// An error holds an *obstacle.Obstacle for each mode that o allows and the machine doesn't.
func Enter(o Options) (*Mode, error) {
	if mode, err := arrive(); mode != nil || err != nil {
		return mode, err
	}
	mode, code, err := find(o)
	if mode != nil || err != nil {
		return mode, err
	}
	os.Exit(code)
	return nil, nil
}

// Entering reports whether Enter will return at once, because another process
// has called it and this one is the inner process.
func Entering() bool {
	value, found := os.LookupEnv(marker)
	var e entry
	return found && json.Unmarshal([]byte(value), &e) == nil && e.Parent == os.Getppid()
}

// An attempt is one way to enter.
type attempt struct {
	mode Mode // without Obstacles
	// newInner prepares the process in new namespaces.
	newInner func() (*inner, error)
	// refused, where no other process is needed, says what refuses it.
	refused func() error
}

// attempts returns the ways to enter that o leaves, the best first.
func attempts(o Options) ([]attempt, error) {
	sandboxed, oneID := Mode{Isolation: Namespaces, OwnUser: true}, Mode{Isolation: Namespaces, OwnUser: true, OneID: true}
	var all []attempt
	root := os.Geteuid() == 0
	switch {
	case !root:
		all = append(all, attempt{mode: sandboxed, newInner: innerWithRanges})
	case !o.Rootless:
		all = append(all, attempt{mode: Mode{Isolation: Namespaces}, newInner: innerOfRoot})
		fallthrough
	default:
		all = append(all, attempt{mode: sandboxed, newInner: innerWithSameIDs})
	}
	all = append(
		all,
		attempt{mode: oneID, newInner: innerWithOneID},
		attempt{mode: Mode{Isolation: Chroot}, refused: func() error { return chrootRefused(o.Rootless) }},
		attempt{mode: Mode{Isolation: None}, refused: func() error { return nil }},
	)
	switch {
	case o.Isolation == "", o.Isolation == Auto:
		return all, nil
	case slices.Contains(Kinds(), o.Isolation):
		return slices.DeleteFunc(all, func(a attempt) bool { return a.mode.Isolation != o.Isolation }), nil
	}
	return nil, fmt.Errorf("enter: isolation %q: want auto or one of %q", o.Isolation, Kinds())
}

// chrootRefused says why commands can't be run in a chroot; nil if they can.
func chrootRefused(rootless bool) error {
	const what = "enter chroot"
	if os.Geteuid() != 0 {
		return &enterError{what, unix.EPERM, obstacle.New("running commands in a chroot takes root", "start bob as root: in Kubernetes\n  securityContext:\n    runAsUser: 0")}
	}
	if rootless {
		return &enterError{what, unix.EPERM, obstacle.New("running commands in a chroot takes root's powers, which --rootless gives up", "leave out --rootless")}
	}
	// Into the root that this process has: it changes nothing.
	if err := unix.Chroot("/"); err != nil {
		return &enterError{what, err, obstacle.New("root lacks CAP_SYS_CHROOT here", "don't drop that capability: in Kubernetes\n  securityContext:\n    capabilities:\n      add: [SYS_CHROOT]")}
	}
	return nil
}

// find goes through the ways to enter until one works. With one that needs no
// other process it returns the mode; with another it runs that process and
// returns its exit status.
func find(o Options) (mode *Mode, code int, err error) {
	all, err := attempts(o)
	if err != nil {
		return nil, 0, err
	}
	// The parent death signal is about the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer signal.Stop(signals)

	var errs []error
	ranks := make(map[error]int)
	for _, a := range all {
		mode := a.mode
		for _, err := range errs {
			if ranks[err] < mode.rank() {
				mode.add(err)
			}
		}
		in, err := a.try(&mode)
		switch {
		case err != nil:
			errs = append(errs, err)
			ranks[err] = mode.rank()
		case in == nil:
			return &mode, 0, nil
		default:
			code, err := in.wait(signals)
			return nil, code, err
		}
	}
	return nil, 0, modesRefused(errs)
}

// try enters. It returns the process that has; nil if this one need not.
func (a *attempt) try(mode *Mode) (*inner, error) {
	if a.newInner == nil {
		return nil, a.refused()
	}
	in, err := a.newInner()
	if err != nil {
		return nil, err
	}
	return in, in.start(mode)
}
