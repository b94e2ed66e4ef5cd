package isolation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/containers/storage/pkg/unshare"
	"github.com/opencontainers/runtime-spec/specs-go"
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

// Options say which namespaces Enter makes.
type Options struct {
	// Rootless has root give up its powers over the machine: the process
	// enters a user namespace, in which all IDs stay the same. For anyone
	// but root that is the only way and Rootless makes no difference.
	Rootless bool
	// Isolation is the one that is wanted; "" is Auto.
	Isolation Kind
}

// Enter finds the best mode that the machine allows, by trying, and enters it. For
// one with namespaces it re-executes the process, with the same arguments and
// environment, as root of a user and a mount namespace of its own; for root without
// Rootless, of a mount namespace only, if the machine allows that. It then returns
// in the inner process. In the outer one
// it returns only if that fails: otherwise it forwards SIGINT, SIGTERM, SIGHUP
// and SIGQUIT to the inner process, and exits with its status, which is 128+n
// if signal n killed it. The inner process is killed when the outer one dies. For
// other modes it returns in the process that called it, in which nothing has changed.
//
// It must be called from the main goroutine, after sandbox.Init and before anything
// that should not happen twice, such as reading standard input.
//
// In the inner process UID 0 is the user and the IDs from 1 up are those that
// /etc/subuid and /etc/subgid give him, if he has a range; no mount reaches the
// outside; cgroup file systems are read-only; and logrus, which libraries under this
// package write to, is silent.
//
// An error holds an *obstacle.Obstacle for each mode that o allows and the machine doesn't.
func Enter(o Options) (*Mode, error) {
	if mode, err := arrive(); mode != nil || err != nil {
		return mode, err
	}
	mode, code, err := find(o)
	if mode != nil || err != nil {
		return mode, err
	}
	os.Exit(code)
	return nil, nil
}

// Entering reports whether Enter will return at once, because another process
// has called it and this one is the inner process.
func Entering() bool {
	value, found := os.LookupEnv(marker)
	var e entry
	return found && json.Unmarshal([]byte(value), &e) == nil && e.Parent == os.Getppid()
}

// arrive completes entering in the inner process. It returns nil if this is none.
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
	// The parent death signal is that of the thread that executes.
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

// innerWithSameIDs prepares that of root in a user namespace in which all IDs stay
// the same.
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

// innerWithRanges prepares that in a user namespace with the ranges of the user.
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

// innerWithOneID prepares that in a user namespace whose one ID is the user's.
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

// innerOf prepares that of who by cmd.
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

// logCapture keeps what libraries log: that is where containers/storage says
// what newuidmap said.
type logCapture struct{ messages []string }

// during runs f and returns its error. What is logged meanwhile goes nowhere
// else.
func (l *logCapture) during(f func() error) error {
	logger := logrus.StandardLogger()
	output := logger.Out
	hooks := logger.ReplaceHooks(logrus.LevelHooks{})
	logger.SetOutput(io.Discard)
	logger.AddHook(l)
	defer func() {
		logger.ReplaceHooks(hooks)
		logger.SetOutput(output)
	}()
	return f()
}

// helperMessages returns what newuidmap and newgidmap said.
func (l *logCapture) helperMessages() string {
	var all []string
	for _, message := range l.messages {
		if _, said, found := strings.Cut(message, "running new"); found {
			all = append(all, "new"+said)
		}
	}
	return strings.Join(all, ", ")
}

// Levels implements logrus.Hook.
func (*logCapture) Levels() []logrus.Level { return logrus.AllLevels }

// Fire implements logrus.Hook.
func (l *logCapture) Fire(e *logrus.Entry) error {
	l.messages = append(l.messages, strings.TrimSpace(e.Message))
	return nil
}
