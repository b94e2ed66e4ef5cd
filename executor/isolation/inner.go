package isolation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/containers/storage/pkg/unshare"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// inner is the inner process.
type inner struct {
	cmd    *exec.Cmd
	launch func() error // starts cmd
	userNS bool         // whether in a user namespace of its own
	who    account
	log    logCapture
}

// innerOfRoot prepares the re-execution in a mount namespace alone.
func innerOfRoot() (*inner, error) {
	return innerWith(&syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}), nil
}

// innerWithSameIDs prepares the re-execution of root in a user namespace in which all IDs
// stay the same.
func innerWithSameIDs() (*inner, error) {
	uids, gids, err := SameIDs()
	if err != nil {
		return nil, fmt.Errorf("enter user namespace: %w", err)
	}
	in := innerWith(&syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: uids, GidMappings: gids, GidMappingsEnableSetgroups: true,
	})
	in.userNS = true
	return in, nil
}

// innerWith prepares a re-execution by Go's own means.
func innerWith(attr *syscall.SysProcAttr) *inner {
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // signals end it
	cmd.SysProcAttr = attr
	return &inner{cmd: cmd, launch: cmd.Start, who: currentAccount()}
}

// innerWithRanges prepares the re-execution in a user namespace with the ranges of the user.
func innerWithRanges() (*inner, error) {
	who := currentAccount()
	uids, gids, err := who.subordinateMaps()
	if err != nil {
		return nil, err
	}
	cmd := unshare.Command(os.Args...)
	cmd.UseNewuidmap, cmd.UidMappings = true, uids
	cmd.UseNewgidmap, cmd.GidMappings = true, gids
	cmd.GidMappingsEnableSetgroups = true
	cmd.Hook = func(pid int) error {
		err := checkMaps(pid, uids, gids)
		if err != nil {
			// It must not report the refusal a second time.
			_ = cmd.Process.Kill()
		}
		return err
	}
	return innerOf(cmd, who), nil
}

// innerWithOneID prepares the re-execution in a user namespace whose one ID is the user's.
func innerWithOneID() (*inner, error) {
	cmd := unshare.Command(os.Args...)
	cmd.UidMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}}
	cmd.GidMappings = []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}}
	return innerOf(cmd, currentAccount()), nil
}

// TryUserNamespace runs cmd, whose path and arguments don't count, as this executable in
// a user and a mount namespace with one ID, which takes no helper. An error is about an
// obstacle.
func TryUserNamespace(cmd *exec.Cmd) error {
	in, err := innerWithOneID()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	in.cmd.Env, in.cmd.Stdout, in.cmd.Stderr, in.cmd.SysProcAttr = cmd.Env, cmd.Stdout, &said, cmd.SysProcAttr
	if err = in.log.during(in.launch); err == nil {
		err = in.cmd.Wait()
	}
	if err != nil {
		return in.explain(err, said.String())
	}
	return nil
}

// innerOf prepares the re-execution of the account by cmd.
func innerOf(cmd *unshare.Cmd, who account) *inner {
	cmd.UnshareFlags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return &inner{cmd: cmd.Cmd, launch: cmd.Start, userNS: true, who: who}
}

// start starts the inner process in the mode and waits until it has arrived.
func (in *inner) start(mode *Mode) error {
	namespace, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	executable, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	encoded, err := json.Marshal(entry{Parent: os.Getpid(), Namespace: namespace, Executable: executable, Mode: mode})
	if err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	in.cmd.Args, in.cmd.Env = os.Args, append(os.Environ(), marker+"="+string(encoded))
	in.cmd.Stdin, in.cmd.Stdout = os.Stdin, os.Stdout
	in.cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("enter: %w", err)
	}
	defer func() { _ = r.Close() }()
	in.cmd.Stderr, in.cmd.ExtraFiles = w, []*os.File{os.Stderr}

	errStart := in.log.during(in.launch)
	_ = w.Close()
	said, err := io.ReadAll(r)
	if errStart == nil && err == nil && string(said) == arrived {
		return nil
	}
	if errStart == nil {
		errStart = in.cmd.Wait()
	}
	return in.explain(errors.Join(errStart, err), string(said))
}

// exitOfSignal plus the number of the signal is the exit status for what a signal killed.
const exitOfSignal = 128

// wait waits for the inner process, hands it the signals, and returns its exit
// status.
func (in *inner) wait(signals <-chan os.Signal) (int, error) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case s := <-signals:
				_ = in.cmd.Process.Signal(s)
			case <-done:
				return
			}
		}
	}()
	err := in.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for inner process: %w", err)
	}
	status, ok := in.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return exitOfSignal + int(status.Signal()), nil
	}
	return in.cmd.ProcessState.ExitCode(), nil
}

// explain says why the inner process didn't arrive and what to do about it.
// said is what it wrote to its standard error: messages of C code, which are
// made of strerror(3).
func (in *inner) explain(err error, said string) error {
	said = strings.TrimSpace(said)
	if found := new(obstacle.Obstacle); json.Unmarshal([]byte(said), found) == nil {
		return &enterError{"enter", unix.EPERM, found} // it ran, and was refused something
	}
	refused := func(errno unix.Errno) bool {
		return errors.Is(err, errno) || strings.Contains(said, capitalised(errno))
	}
	switch {
	case errors.Is(err, errMapRefused):
		return &enterError{"enter user namespace", errMapRefused, in.who.mapsRefused(in.log.helperMessages())}
	case in.userNS && refused(unix.ENOSPC):
		return &enterError{"enter user namespace", unix.ENOSPC, obstacle.NamespaceLimit()}
	case in.userNS && (refused(unix.EPERM) || refused(unix.EACCES)):
		return &enterError{"enter user namespace", unix.EPERM, obstacle.OfNamespaces()}
	case in.userNS && (refused(unix.EINVAL) || refused(unix.ENOSYS)):
		return &enterError{"enter user namespace", err, noUserNamespaces()}
	case refused(unix.EPERM):
		return &enterError{"enter mount namespace", unix.EPERM, noMountPowers()}
	case said != "":
		return fmt.Errorf("enter: %w: %s", err, said)
	}
	return fmt.Errorf("enter: %w", err)
}

func noUserNamespaces() *obstacle.Obstacle {
	return obstacle.New("this kernel is built without user namespaces (CONFIG_USER_NS)", "use another kernel, or run bob as root")
}

// noMountPowers is what root in a container without CAP_SYS_ADMIN meets.
func noMountPowers() *obstacle.Obstacle {
	return obstacle.New("root lacks CAP_SYS_ADMIN here", "start the container with --privileged, or let it make user namespaces")
}
