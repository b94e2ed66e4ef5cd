package isolation

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// A Kind of isolation is how the commands of RUN are kept from each other and from the
// rest of the machine.
type Kind string

// The kinds, the best first.
const (
	Auto       Kind = "auto"    // the first of the others that the machine allows
	Namespaces Kind = "sandbox" // a container with namespaces of its own
	Chroot     Kind = "chroot"  // root that has no namespaces and mounts nothing
	None       Kind = "none"    // nothing runs, and nothing is needed for that
)

// A Mode is how builds work on this machine.
type Mode struct {
	// Isolation is never Auto; "" is Namespaces.
	Isolation Kind
	// OneID says that this process has no more than one user and one group ID,
	// which are those of every file that it makes: other owners have to be
	// recorded, and the system calls that would set them answered in the kernel's
	// place.
	OneID bool
	// OwnUser says that this process is in a user namespace that Enter made, which
	// nobody else is in.
	OwnUser bool
	// Obstacles are what keeps the machine from better modes.
	Obstacles []*obstacle.Obstacle
}

// CanRun reports whether commands can be run.
func (m *Mode) CanRun() bool { return m.Isolation != None }

// CanMount reports whether file systems can be mounted, for commands or otherwise.
func (m *Mode) CanMount() bool { return m.Isolation == Namespaces || m.Isolation == "" }

// HarmlessDevices reports whether a command could open every device that a file system has
// for it, so that it may have none that does harm.
func (m *Mode) HarmlessDevices() bool { return m.Isolation == Chroot }

// RecordsOwners reports whether owners can't be given to files, and are recorded on them.
func (m *Mode) RecordsOwners() bool { return m.OneID || !m.CanRun() }

// String names the mode for people.
func (m *Mode) String() string {
	switch {
	case !m.CanRun():
		return "no isolation, and no RUN"
	case !m.CanMount():
		return "a chroot without namespaces"
	case m.OneID:
		return "a sandbox with one ID"
	}
	return "a sandbox"
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
	switch o.Isolation {
	case "", Auto:
		return all, nil
	case Namespaces, Chroot, None:
		return slices.DeleteFunc(all, func(a attempt) bool { return a.mode.Isolation != o.Isolation }), nil
	}
	return nil, fmt.Errorf("enter: isolation %q: want auto, sandbox, chroot or none", o.Isolation)
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

// rank is 0 for the best mode.
func (m *Mode) rank() int {
	rank := slices.Index([]Kind{Namespaces, Chroot, None}, m.Isolation) * 2
	if m.OneID {
		rank++
	}
	return rank
}

// add adds the obstacle of an error of Enter, unless it is there. It reports
// whether it did.
func (m *Mode) add(err error) bool {
	found := new(obstacle.Obstacle)
	if !errors.As(err, &found) {
		found = &obstacle.Obstacle{Why: err.Error()}
	}
	if slices.ContainsFunc(m.Obstacles, func(o *obstacle.Obstacle) bool { return *o == *found }) {
		return false
	}
	m.Obstacles = append(m.Obstacles, found)
	return true
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

// Why returns what the obstacles are.
func (m *Mode) Why() string {
	all := make([]string, 0, len(m.Obstacles))
	for _, o := range m.Obstacles {
		all = append(all, o.Why)
	}
	return strings.Join(all, "; ")
}

// modesError holds the errors of all modes, each obstacle once.
type modesError []error

func modesRefused(errs []error) modesError {
	var seen Mode
	return slices.DeleteFunc(errs, func(err error) bool { return !seen.add(err) })
}

func (e modesError) Error() string {
	return errors.Join(e...).Error() + "\n`bob doctor` shows all that builds need"
}

func (e modesError) Unwrap() []error { return e }

// Reason returns the obstacle of an error of this package. Of one about several modes it
// names all that is in their way, and how to have the best.
func Reason(err error) *obstacle.Obstacle {
	if all, ok := errors.AsType[modesError](err); ok {
		var m Mode
		for _, err := range all {
			m.add(err)
		}
		return obstacle.New(m.Why(), m.Obstacles[0].Fix)
	}
	if found := new(obstacle.Obstacle); errors.As(err, &found) {
		return found
	}
	return obstacle.New(err.Error(), "")
}
