package isolation

import (
	"errors"
	"slices"
	"strings"

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

// Kinds returns the kinds but Auto, the best first.
func Kinds() []Kind { return []Kind{Namespaces, Chroot, None} }

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

// rank is 0 for the best mode.
func (m *Mode) rank() int {
	rank := slices.Index(Kinds(), m.Isolation) * 2
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

// Why returns what the obstacles are.
func (m *Mode) Why() string {
	all := make([]string, 0, len(m.Obstacles))
	for _, o := range m.Obstacles {
		all = append(all, o.Why)
	}
	return strings.Join(all, "; ")
}
