package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/cgroups/fs"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/stream"
	"github.com/bobbuild/bob/executor/sandbox/landlock"
)

// settleForks waits until every child that another goroutine is forking has
// executed. Until then the child holds copies of descriptors that this one has
// closed meanwhile, and the caller could not unmount the root file system.
func settleForks() {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
}

// runIn runs the process in the container behind the entrance, on a thread of its own.
// oneID says that the container has one user and one group ID.
func runIn(ctx context.Context, container *libcontainer.Container, p *Process, e entrance, oneID bool) error {
	done := make(chan error, 1)
	go func() {
		// The kernel sends the container its parent death signal when the thread that
		// forked it ends, and what restricts the thread restricts the container. It is
		// never unlocked: it ends with this goroutine, when the container is gone.
		runtime.LockOSThread()
		if !p.Insecure {
			if err := landlock.ConfineScopes(); err != nil {
				done <- fmt.Errorf("confine command by Landlock: %w", err)
				return
			}
		}
		done <- runOnThread(ctx, container, p, e, oneID)
	}()
	return <-done
}

// runOnThread is runIn on the thread that the container descends from.
func runOnThread(ctx context.Context, container *libcontainer.Container, p *Process, e entrance, oneID bool) error {
	caller := ctx
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("open standard input: %w", err)
	}
	defer func() { _ = null.Close() }()
	output, err := stream.Open(p.Stdout, p.Stderr)
	if err != nil {
		return err
	}
	process := &libcontainer.Process{
		Init: true,
		Args: p.Args,
		Env:  p.Env,
		UID:  int(p.UID), GID: int(p.GID),
		AdditionalGroups: groups(p.Groups),
		Cwd:              workingDir(p.Dir),
		Stdin:            null,
		Stdout:           output.Stdout(),
		Stderr:           output.Stderr(),
		LogLevel:         strconv.Itoa(int(logrus.ErrorLevel)), // else it tells every step
	}
	if oneID {
		// There is no other ID. The command gets the IDs of p as soon as it is executed.
		process.UID, process.GID, process.AdditionalGroups = 0, 0, nil
	}
	if err := e.pass(container, process); err != nil {
		_ = output.Finish()
		return errors.Join(startFailure(ctx, err), reap(process))
	}
	output.Start(cancel)
	stop := context.AfterFunc(ctx, func() {
		// It is the first process of a PID namespace, so all others die with it. The
		// container's own Signal would look in /proc first whether it runs, and do
		// nothing if that fails. An error says that it has ended.
		_ = process.Signal(unix.SIGKILL)
	})
	err = exitStatus(process.Wait())
	killed := !stop()
	err = errors.Join(err, output.Finish())
	var exit *ExitError
	if killed && errors.As(err, &exit) && exit.Signal == unix.SIGKILL {
		if caller.Err() != nil {
			return caller.Err()
		}
		return context.Cause(ctx) // a writer failed
	}
	return err
}

// reap kills and waits for what a failed start may have left running.
func reap(process *libcontainer.Process) error {
	if err := process.Signal(unix.SIGKILL); err != nil {
		return nil //nolint:nilerr // nothing runs
	}
	var exit *exec.ExitError
	if _, err := process.Wait(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("wait for container: %w", err)
	}
	return nil
}

// detectFiles makes package fs detect how some files of cgroups are called, as its users do
// for each container. It keeps the names for all of them without a lock, and containers
// start at the same time.
var detectFiles = sync.OnceValue(func() error {
	m, err := fs.NewManager(&cgroups.Cgroup{Rootless: true, Resources: &cgroups.Resources{}}, map[string]string{})
	if err != nil {
		return err
	}
	return m.Set(&cgroups.Resources{})
})

// mountContainers returns a directory in state for libcontainer's files, on a file system of
// its own in memory where that can be mounted, and how to undo that. For each container
// libcontainer protects its executable by an overlay of the directories of the executable
// and of its files. That fails if one lies below the other on one file system, and then it
// copies the executable, all of bob, into memory. It also fails, whatever is done here, if
// somebody has mounted anything below the directory of the executable.
func mountContainers(state string) (dir string, undo func() error, err error) {
	dir = filepath.Join(state, "container")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("make state directory: %w", err)
	}
	mounted := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700,size=16m") == nil
	return dir, func() error {
		if !mounted {
			return nil // it worked, if more slowly
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
		return nil
	}, nil
}

// newContainer makes a container with its state in a directory called id below dir.
// libcontainer wants a cgroup in each hierarchy of version 1, and fails where a hierarchy
// is missing or elsewhere. For a container that it loads it reads its cgroups from a file.
// Here that file says that the container has no cgroups.
func newContainer(dir, id string, config *configs.Config) (*libcontainer.Container, error) {
	if cgroups.IsCgroup2UnifiedMode() {
		return libcontainer.Create(dir, id, config)
	}
	if err := detectFiles(); err != nil {
		return nil, fmt.Errorf("look at cgroups: %w", err)
	}
	encoded, err := json.Marshal(&struct { // a pointer: Hooks marshals itself only then
		libcontainer.BaseState
		CgroupPaths map[string]string `json:"cgroup_paths"`
	}{libcontainer.BaseState{ID: id, Config: *config}, map[string]string{}})
	if err != nil {
		return nil, fmt.Errorf("describe container: %w", err)
	}
	state := filepath.Join(dir, id)
	if err := os.Mkdir(state, 0o711); err != nil { //nolint:gosec // as libcontainer makes it
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(state, "state.json"), encoded, 0o600); err != nil {
		return nil, err
	}
	container, err := libcontainer.Load(dir, id)
	if err == nil && len(config.Hooks) > 0 {
		maps.Copy(container.Config().Hooks, config.Hooks) // which a file can't hold
	}
	return container, err
}
