package isolation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/cgroup"
	"github.com/bobbuild/bob/executor/obstacle"
	"github.com/bobbuild/bob/executor/sandbox/mountattr"
)

// marker is the environment variable by which the outer process tells the
// inner one that it has entered, an entry in JSON. It is believed only if the
// parent process and the mount namespace bear it out.
const marker = "_BOB_ENTERED"

// entry is what the outer process tells the inner one.
type entry struct {
	Parent     int    // the outer process
	Namespace  string // its mount namespace
	Executable string // its path, until that has been executed by its path
	Mode       *Mode
}

// The descriptors of the inner process until it arrives: its standard error is
// a pipe to the outer one, which so learns why it didn't get as far as Go
// code; the true one is passed beside it.
const (
	stderrFD   = 2
	trueStderr = 3
	arrived    = "arrived"
)

// arrive completes entering in the inner process. It returns nil in any other
// process.
func arrive() (*Mode, error) {
	value, found := os.LookupEnv(marker)
	if !found {
		return nil, nil
	}
	if err := os.Unsetenv(marker); err != nil {
		return nil, fmt.Errorf("enter: %w", err)
	}
	namespace, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil, fmt.Errorf("enter: %w", err)
	}
	var e entry
	if err := json.Unmarshal([]byte(value), &e); err != nil || e.Parent != os.Getppid() || e.Mode == nil {
		return nil, nil //nolint:nilerr // inherited from somebody else
	}
	if e.Namespace == namespace || os.Getuid() != 0 {
		return nil, errors.New("enter: re-executed without new namespaces")
	}
	if e.Executable != "" {
		if err := reportArrival(prepareMounts()); err != nil {
			return nil, err
		}
		executeByPath(&e)
	}
	logrus.SetOutput(io.Discard)
	return e.Mode, nil
}

// reportArrival tells the outer process that this one runs, and gives this one
// its standard error. If something was refused to it, it tells that and exits.
func reportArrival(refused error) error {
	if refused != nil {
		if found := new(obstacle.Obstacle); errors.As(refused, &found) {
			// What goes wrong here, the outer process sees from the output.
			_ = json.NewEncoder(os.Stderr).Encode(found)
		} else {
			fmt.Fprintln(os.Stderr, refused)
		}
		os.Exit(1)
	}
	if _, err := unix.Write(stderrFD, []byte(arrived)); err != nil {
		return fmt.Errorf("enter: report arrival: %w", err)
	}
	if err := unix.Dup3(trueStderr, stderrFD, 0); err != nil {
		return fmt.Errorf("enter: restore standard error: %w", err)
	}
	_ = unix.Close(trueStderr)
	return nil
}

// executeByPath executes the executable once more, by its path, if it was not
// executed so: containers/storage executes it from a mount that is gone. Then
// libcontainer, which protects it from the container by an overlay of the
// directory that it is in, would have to copy all of it for each container. It
// returns if that is not so or not possible.
func executeByPath(e *entry) {
	executable := e.Executable
	link, err := os.Readlink("/proc/self/exe")
	if err != nil || link == executable {
		return
	}
	byPath, err := os.Stat(executable)
	if err != nil {
		return
	}
	if self, err := os.Stat("/proc/self/exe"); err != nil || !os.SameFile(self, byPath) {
		return
	}
	e.Executable = ""
	encoded, err := json.Marshal(e)
	if err != nil {
		return
	}
	// The parent death signal belongs to the thread that executes.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	_ = unix.Exec(executable, os.Args, append(os.Environ(), marker+"="+string(encoded)))
}

// prepareMounts keeps the mounts of this process from the rest of the machine.
func prepareMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		err = fmt.Errorf("make mounts private: %w", err)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			return &enterError{"enter", err, obstacle.OfMounts()}
		}
		return fmt.Errorf("enter: %w", err)
	}
	// Where bob is allowed to make cgroups, libcontainer would. A build needs
	// none, and one killed halfway would leave them behind.
	err := mountattr.Restrict(cgroup.Root, unix.MOUNT_ATTR_RDONLY)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("enter: make cgroups read-only: %w", err)
	}
	return nil
}
