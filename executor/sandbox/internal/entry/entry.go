// Package entry is what the first process of a container does until it executes the command.
//
// libcontainer executes this executable again, whose C constructor makes the namespaces
// before the Go runtime starts. All packages of bob would then be initialised in each
// container. So a constructor of this package goes on in a small program of its own, which
// is embedded in bob and has nothing but package libcontainer. Where bob was built without
// it the process goes on as it is.
package entry

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/exeseal"
	"golang.org/x/sys/unix"
)

// The descriptors that the process gets beside those of libcontainer, in the order of the
// files that it is started with.
const (
	// FilterSocket is the one through which the container's seccomp filter comes.
	FilterSocket = 3
	// ProgramFile is the small program.
	ProgramFile = 4
)

// Umask is the file mode creation mask of containers.
const Umask = 0o022

// Become makes this process, which libcontainer has executed, the first of a container. It
// doesn't return. It must be called from the main goroutine.
func Become() {
	// The thread that runs libcontainer's init is the one that executes the command, so the
	// signal set here outlives the exec: a container never survives the bob that started
	// it, however bob dies. libcontainer sets it again after changing user, which clears it.
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	// libcontainer sets the umask only after it has made directories.
	unix.Umask(Umask)
	unix.CloseOnExec(ProgramFile)
	if err := startThread(FilterSocket); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	libcontainer.Init()
}

// Files returns the files to start the process of a container with: the other end of the
// filter's socket and the small program. The caller closes none but the first.
func Files(socket *os.File) []*os.File {
	if p := sealedProgram(); p != nil {
		return []*os.File{socket, p}
	}
	return []*os.File{socket}
}

// sealedProgram returns the small program as a file in memory that nobody can change, or
// nil if there is no such program. It is never closed.
var sealedProgram = sync.OnceValue(func() *os.File {
	if len(program) == 0 {
		return nil
	}
	f, err := exeseal.CloneBinary(bytes.NewReader(program), int64(len(program)), "init", os.TempDir())
	if err != nil {
		return nil // bob does as well
	}
	return f
})
