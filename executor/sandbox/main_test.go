package sandbox_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
	"golang.org/x/sys/unix"
)

// The tests of this package run containers, and so in entered processes. Run
// by root, every test runs three times: as root, as root without powers and as
// an ordinary user, the last two in processes that TestModes starts from the
// same binary. Run by anyone else, every test runs once, as that user.
const (
	modeVariable = "SANDBOX_TEST_MODE"
	modeRootless = "rootless"
	modeUser     = "user"
	modeOneID    = "one ID"

	// killedVariable has a process run a container until it is killed, in place of the
	// tests. It holds the root file system.
	killedVariable = "SANDBOX_TEST_KILLED"
)

// errNotEntered is why the tests that run containers are skipped, nil if they
// aren't.
var errNotEntered error

// busybox is the program that root file systems are made of.
const busybox = "/bin/busybox"

func TestMain(m *testing.M) {
	sandbox.Init()
	sandboxtest.Init()
	// What the sandbox makes may not depend on it; the tests change modes.
	unix.Umask(0o077)
	mode := os.Getenv(modeVariable)
	switch mode {
	case modeOneID:
		enterOneID()
		os.Exit(m.Run())
	case modeChroot:
		errNotEntered = errors.New("these tests take namespaces")
		if root := os.Getenv(killedVariable); root != "" {
			os.Exit(runKilled(root))
		}
		os.Exit(m.Run())
	}
	_, errNotEntered = isolation.Enter(isolation.Options{Rootless: mode == modeRootless, Isolation: isolation.Namespaces})
	if errNotEntered != nil && mode != "" {
		fmt.Fprintln(os.Stderr, errNotEntered)
		os.Exit(124)
	}
	if os.Getenv(noUserNamespaceVariable) == "limited" {
		// Of the namespace that was entered.
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(123)
		}
	}
	if root := os.Getenv(killedVariable); root != "" {
		os.Exit(runUntilKilled(root))
	}
	code := m.Run()
	_ = os.RemoveAll(programsDir())
	os.Exit(code)
}

// again returns a command that runs this test binary with the arguments, in the mode,
// and as another user unless id is nil.
func again(t testing.TB, mode string, id *sandboxtest.Identity, args ...string) *exec.Cmd {
	t.Helper()
	cmd := sandboxtest.Again(t, id, args...)
	cmd.Env = append(cmd.Env, modeVariable+"="+mode)
	return cmd
}

// ordinaryUser returns a user with all that a sandbox takes.
func ordinaryUser(t testing.TB) *sandboxtest.Identity {
	t.Helper()
	if errNotEntered != nil {
		t.Skip(errNotEntered)
	}
	return sandboxtest.OrdinaryUser(t)
}

// withoutRanges returns a user who has no subordinate IDs.
func withoutRanges(t testing.TB) *sandboxtest.Identity {
	t.Helper()
	if errNotEntered != nil {
		t.Skip(errNotEntered)
	}
	return sandboxtest.WithoutRanges(t)
}

func TestModes(t *testing.T) {
	if os.Getenv(modeVariable) != "" || errNotEntered != nil || sandboxtest.InUserNamespace(t) {
		t.Skip("only root runs the tests in other modes")
	}
	dir := programs(t)
	for mode, id := range map[string]*sandboxtest.Identity{modeRootless: nil, modeUser: ordinaryUser(t), modeOneID: withoutRanges(t)} {
		t.Run(mode, func(t *testing.T) {
			args := []string{"-test.count=1", "-test.timeout=20m"}
			if mode != modeUser { // where these, which take long, find nothing more
				args = append(args, "-test.skip=^(TestDescriptorAsWorkingDirectory|TestCancelAtAnyTime|TestLongLine|TestThreadsStay|TestNo.*Traces|TestSwappedMountPoints|TestRacedMountTargets|TestConcurrentRuns)$")
			}
			if testing.Verbose() {
				args = append(args, "-test.v")
			}
			cmd := again(t, mode, id, args...)
			cmd.Env = append(cmd.Env, programsVariable+"="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			} else if testing.Verbose() {
				t.Logf("%s", out)
			}
		})
	}
}

// oneIDVariable says that the process is in namespaces that enterOneID made.
const oneIDVariable = "SANDBOX_TEST_ONE_ID"

// enterOneID has this process run again in a user namespace that has no other ID
// than that of its user, and ends with it. There it returns.
func enterOneID() {
	if os.Getenv(oneIDVariable) != "" {
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(124)
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), oneIDVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   unix.SIGKILL,
	}
	runtime.LockOSThread() // whose end the signal is about
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(124)
	}
	os.Exit(cmd.ProcessState.ExitCode())
}
