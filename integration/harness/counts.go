package harness

// A Kind is something that a build does and that is counted.
type Kind int

// The kinds. [Trace.Counts] counts all but the last three, which [Traffic] counts. A call
// that fails counts as well.
const (
	Processes  Kind = iota // made, threads excluded
	Execs                  // programs started
	Opens                  // of files and directories
	Stats                  // what stat, readlink and access find out
	Attributes             // owners, modes, times and extended attributes, set or read
	Changes                // names made, moved or removed
	Mounts                 // made, changed or removed
	Syncs                  // of files or whole file systems
	Transfers              // reads and writes of files
	Read                   // bytes out of files
	Written                // bytes into files
	Requests               // to the registry
	Sent                   // bytes of bodies to the registry
	Received               // bytes of bodies from the registry

	// Kinds is how many kinds there are.
	Kinds
)

func (k Kind) String() string {
	return [Kinds]string{
		"processes", "execs", "opens", "stats", "attributes", "changes", "mounts", "syncs",
		"transfers", "bytes read", "bytes written", "requests", "bytes sent", "bytes received",
	}[k]
}

// Counts says how often a build did something, by kind.
type Counts [Kinds]int64
