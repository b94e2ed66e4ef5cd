package dockerfile

// Op is what a step does to the file system. The set is closed: *Run, *Copy
// and *Workdir. Values are owned by whoever called [Stage.Steps].
type Op interface{ op() }

func (*Run) op()     {}
func (*Copy) op()    {}
func (*Workdir) op() {}

// Run executes a command in the file system of the stage.
type Run struct {
	Args []string // final argument vector, the shell included; never empty, a bare RUN gives its shell ""
	Env  []string // complete, in the order in which variables were last set, without duplicates
	Dir  string   // absolute and clean
	User string   // "user[:group]", names or numbers, as in the image configuration; "" is root

	// Network is "none" or "host" when RUN --network asks for it and "" when
	// the build decides.
	Network string

	// Script is the file that Args[0] names, when the instruction is a
	// heredoc that begins with "#!"; nil otherwise.
	Script *Script

	// Proxy are those entries of Env that come from the predefined proxy
	// arguments. They should not take part in a cache key.
	Proxy []string
}

// Script is a heredoc that is executed itself. It must be present at
// /dev/pipes/<Name> with mode 0755 while the command runs, and leave no trace.
type Script struct {
	Name    string // a single path element
	Content []byte
}

// Copy copies files into the file system of the stage.
type Copy struct {
	From    From         // the zero value is the build context
	Sources []string     // relative to the root of From, clean, "." is the root; may hold wildcards of filepath.Match
	Files   []InlineFile // heredoc sources, copied after Sources

	// Dest is absolute and clean, but for a "/" at its end when the
	// instruction names a directory. With several sources a directory is
	// meant in any case.
	Dest string

	Chown  string // "user[:group]", names or numbers; "" is root for the context and the owner in From otherwise
	Chmod  string // octal number up to 7777; "" keeps the modes
	Unpack bool   // local archives among Sources are unpacked (ADD)
}

// InlineFile is a heredoc source: a file with mode 0644 made of the
// Dockerfile's own text.
type InlineFile struct {
	Name    string // a single path element
	Content []byte
}

// From is where a Copy takes its files: the build context (zero), a stage, or
// an image.
type From struct {
	Stage *Stage
	Image string // normalised reference, to be resolved for the platform of the copying stage
}

// Workdir creates a directory with its parents unless it exists, mode 0755.
type Workdir struct {
	Path string // absolute and clean, never "/"
	User string // owner of what is created, as in Run.User
}
