package dockerfile

import "github.com/opencontainers/go-digest"

// Op is what a step does to the file system. The set is closed: *Run, *Copy
// and *Workdir. Values are owned by whoever called [Stage.Steps].
//
//sumtype:decl
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

	// Insecure is --security=insecure: the command gets every capability and
	// no confinement. Whoever runs the step must ask whether that is allowed.
	Insecure bool

	// Hostname is what the build argument BUILDKIT_SANDBOX_HOSTNAME asks for,
	// "" if the build decides.
	Hostname string

	// Mounts are what --mount asks for, in the order written.
	Mounts []Mount

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
	From    From     // where a Path among Sources is looked up
	Sources []Source // copied one after the other, as if each were an instruction of its own

	// Dest is absolute and clean, but for a "/" at its end when the
	// instruction names a directory.
	Dest string

	Chown   string   // "user[:group]", names or numbers; "" is root for the context and the owner in From otherwise
	Chmod   string   // octal number up to 7777 or a symbolic mode as of chmod(1); "" keeps the modes
	Exclude []string // patterns, in the syntax of .dockerignore, of what is left out below the directories copied

	// Link says that the result doesn't depend on what is at Dest: the files
	// make a layer of their own. It is never set together with Chmod, with
	// which BuildKit copies as if --link were not there.
	Link bool
}

// Source is something that a Copy copies. The set is closed: *Path, *Inline,
// *Download and *Repository.
//
//sumtype:decl
type Source interface{ source() }

func (*Path) source()       {}
func (*Inline) source()     {}
func (*Download) source()   {}
func (*Repository) source() {}

// Path is a file or directory of Copy.From, or what a wildcard matches there.
type Path struct {
	Name string // relative to the root of From, clean, "." is the root; may hold wildcards of filepath.Match

	// Parents is, with --parents, what is copied of the directory Name
	// together with its parent directories below Name: a pattern in the
	// syntax of .dockerignore, "." for one that matches nothing. It is ""
	// without --parents.
	Parents string

	// Required says that neither Name nor Parents holds a wildcard. It is then an
	// error if there is no file at Name/Parents, or at Name without --parents.
	Required bool

	Unpack bool // an archive is unpacked (ADD)
}

// Inline is a heredoc: a file with mode 0644 made of the Dockerfile's own text.
type Inline struct {
	Name    string // a single path element
	Content []byte
}

// Download is a file to fetch by HTTP. It has mode 0600 and the time of the
// response's Last-Modified.
type Download struct {
	URL      string
	Name     string        // of the file in a destination directory: a single path element
	Checksum digest.Digest // of the content, "" if any will do
	Unpack   bool          // an archive is unpacked
}

// Repository is the tree of a commit of a git repository.
type Repository struct {
	Remote         string // URL, or user@host:path
	Ref            string // branch, tag, full reference or commit; "" is the remote's HEAD
	Checksum       string // hexadecimal digits that the commit's hash must begin with; "" if any will do
	Subdir         string // relative to the root of the tree, "" is the root
	KeepGitDir     bool   // the directory .git is part of the result
	SkipSubmodules bool
	CommitTime     bool // files have the commit's time and not that of the checkout
	FetchByCommit  bool // Checksum is fetched without asking what Ref means
}

// Workdir creates a directory with its parents unless it exists, mode 0755.
type Workdir struct {
	Path string // absolute and clean, never "/"
	User string // owner of what is created, as in Run.User
}
