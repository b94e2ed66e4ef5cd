package chroot

import (
	"context"
	"io"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// A Command is what is run in a chroot.
type Command struct {
	// Root is the root file system, an absolute path free of symlinks. Nothing else uses it.
	Root string
	// State is an empty directory on the same file system.
	State string
	// Args, Env and Dir are the command's. HOME is added to Env if it is missing.
	Args, Env []string
	Dir       string
	UID, GID  uint32
	Groups    []int
	Umask     int
	Rlimits   []configs.Rlimit
	// Etc are files that the command finds, unless one of Mounts takes the place. They are
	// moved away from their sources.
	Etc    []Mount
	Mounts []Mount
	// Copy copies a file or directory to a path where nothing is, with the owners and modes
	// of all that is in it. Only mounts take it.
	Copy func(ctx context.Context, from, to string) error
	// Stdout and Stderr receive the output; nil discards it.
	Stdout, Stderr io.Writer
}

// A Mount is something that the command finds in its root file system.
type Mount struct {
	Kind   Kind
	Target string // an absolute path there
	// Source, of a Bind, is an absolute path outside, or what Opened tells.
	Source   string
	ReadOnly bool
	// The content, the owner and the permission bits of a Secret.
	Content        []byte
	UID, GID, Mode uint32
}

// A Kind is a kind of Mount.
type Kind int

// The kinds of mounts.
const (
	Bind   Kind = iota // shows a file, directory or socket
	Tmpfs              // is an empty directory
	Secret             // is a file that is wiped afterwards
)

// A Result is how a command ended.
type Result struct {
	// Ended says that the command was started, and ended with the status.
	Ended  bool
	Status unix.WaitStatus
	// Refused says why it was not started, "" if something else went wrong.
	Refused string
	// Restored are the paths, relative to the root, of what was changed for the command and
	// is again as it was in all but the time of its last change (st_ctime).
	Restored []string
}
