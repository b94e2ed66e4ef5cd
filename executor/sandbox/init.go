package sandbox

import (
	"os"
	"runtime"

	"github.com/containers/storage/pkg/reexec"

	"github.com/bobbuild/bob/executor/sandbox/internal/chroot"
	"github.com/bobbuild/bob/executor/sandbox/internal/entry"

	// The C constructor of nsenter makes the container's namespaces before
	// the Go runtime of the re-executed process starts.
	_ "github.com/opencontainers/runc/libcontainer/nsenter"
)

// initPipe is the variable by which libcontainer tells its re-executed self
// where to read the container's configuration.
const initPipe = "_LIBCONTAINER_INITPIPE"

// libcontainer has a thread of this process join each container's mount
// namespace, after which the Go runtime ends it. The main thread can't be
// ended: it would keep the namespace and all mounts in it, and be what
// /proc/self shows from then on. The main goroutine holds it so that no other
// one runs on it. That takes an init function: before main begins, the main
// goroutine is on the main thread; later it may be anywhere.
func init() { runtime.LockOSThread() }

// Init must be the first statement of main, and of TestMain in every package
// whose tests run containers. In a process that libcontainer re-executed to
// become a container's first process it never returns. In one that guards or becomes a
// command in a chroot it exits when that has ended. In any other it returns at once.
func Init() {
	if _, piped := os.LookupEnv(initPipe); piped && len(os.Args) == 2 && os.Args[1] == "init" {
		entry.Become()
	}
	chroot.Init()
	if reexec.Init() { // containers/storage starts no process before it
		os.Exit(0)
	}
}
