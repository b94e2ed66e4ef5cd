package sandbox

// Isolation is how the commands of RUN are kept from each other and from the rest
// of the machine.
type Isolation string

// The isolations, the best first.
const (
	Auto        Isolation = "auto"    // the first of the others that the machine allows
	Namespaces  Isolation = "sandbox" // a container with namespaces of its own
	Chroot      Isolation = "chroot"  // root that has no namespaces and mounts nothing
	NoIsolation Isolation = "none"    // nothing runs, and nothing is needed for that
)

// A Mode is how builds work on this machine.
type Mode struct {
	// Isolation is never Auto.
	Isolation Isolation
	// OneID says that this process has no more than one user and one group ID,
	// which are those of every file that it makes: other owners have to be
	// recorded, and the system calls that would set them answered in the kernel's
	// place.
	OneID bool
	// Obstacles are what keeps the machine from better modes.
	Obstacles []*Obstacle
}
