package snapshot_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strings"
	"syscall"
	"testing"

	"github.com/containers/storage/pkg/reexec"
	"github.com/containers/storage/pkg/unshare"
)

// modeVar tells a re-executed test binary where it is: "root" in a private mount
// namespace, "user" in a user namespace too.
const modeVar = "BOB_SNAPSHOT_TEST_MODE"

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	flag.Parse()
	if os.Getenv(modeVar) == "" && !fuzzing() {
		enter()
	}
	os.Exit(m.Run())
}

// fuzzing reports whether this is a fuzzing run or a worker of one: these talk
// with each other through files and flags, and mount nothing.
func fuzzing() bool {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" && f.Value.String() != "false" {
			return true
		}
	}
	return false
}

// enter runs the tests in a mount namespace of their own and doesn't return,
// unless there is no way: then the tests that mount are skipped.
func enter() {
	if os.Geteuid() != 0 {
		if unshare.IsRootless() && hasRanges() {
			os.Setenv(modeVar, "user")
			unshare.MaybeReexecUsingUserNamespace(false)
		}
		return
	}
	err := runSelf(os.Args[1:], "root", &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS})
	var exit *exec.ExitError
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	}
	fmt.Fprintln(os.Stderr, "no mount namespace:", err)
}

// hasRanges reports whether this user may be mapped more IDs than its own.
func hasRanges() bool {
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return false
	}
	me, err := user.Current()
	if err != nil {
		return false
	}
	for _, name := range []string{"/etc/subuid", "/etc/subgid"} {
		b, err := os.ReadFile(name)
		if err != nil {
			return false
		}
		text := "\n" + string(b)
		if !strings.Contains(text, "\n"+me.Username+":") && !strings.Contains(text, "\n"+me.Uid+":") {
			return false
		}
	}
	return true
}

func runSelf(args []string, mode string, attr *syscall.SysProcAttr) error {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), modeVar+"="+mode)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	return cmd.Run()
}

// TestInUserNamespace runs all other tests again as the root of a user namespace
// whose IDs are those of nobody on this machine. It is what newuidmap gives to an
// ordinary user, without the need for one.
func TestInUserNamespace(t *testing.T) {
	if os.Getenv(modeVar) != "root" {
		t.Skip("wants to be root outside of a user namespace")
	}
	if testing.CoverMode() != "" {
		t.Log("coverage of this run is not counted")
	}
	const first, count = 1 << 30, 65537
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: first, Size: count}}
	// These take long and know nothing of users.
	args := []string{"-test.count=1", "-test.run=" + flag.Lookup("test.run").Value.String(), "-test.skip=^(TestCompress.*|TestExtractSparse)$"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), modeVar+"=user", "TMPDIR=/tmp", "HOME=/")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if errors.Is(err, syscall.EPERM) {
		t.Skip("user namespaces are not allowed here:", err)
	}
	if err != nil || testing.Verbose() {
		t.Logf("in the user namespace:\n%s", out.Bytes())
	}
	if err != nil {
		t.Error(err)
	}
}

// needMounts skips the test where the process has no mount namespace of its own.
func needMounts(t testing.TB) {
	t.Helper()
	if os.Getenv(modeVar) == "" {
		t.Skip("wants a mount namespace: run as root, or as a user with ranges in /etc/subuid and /etc/subgid")
	}
}

// needOwners skips the test where files can't be given away.
func needOwners(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("wants to change the owners of files: run as root, or as a user with ranges in /etc/subuid and /etc/subgid")
	}
}

// realRoot reports whether the process may make device nodes.
func realRoot() bool { return os.Getenv(modeVar) == "root" }
