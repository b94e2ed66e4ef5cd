package binfmt_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox"
)

// The tests run programs in containers, and so in entered processes. Run by root, they run
// three times: as root, as root without powers, and as a user with one ID, the last two in
// processes that TestModes starts from the same binary.
const (
	modeVariable = "BINFMT_TEST_MODE"
	modeRootless = "rootless"
	modeOneID    = "one ID"
)

// entered is the mode that the tests run in.
var entered *isolation.Mode

func TestMain(m *testing.M) {
	sandbox.Init()
	mode := os.Getenv(modeVariable)
	var err error
	entered, err = isolation.Enter(isolation.Options{Rootless: mode == modeRootless, Isolation: isolation.Namespaces})
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests that run programs are skipped:", err)
	}
	if mode != "" && (entered == nil || entered.OneID != (mode == modeOneID)) {
		fmt.Fprintln(os.Stderr, "entered", entered, "for", mode)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestModes(t *testing.T) {
	if entered == nil || entered.OwnUser || os.Getenv(modeVariable) != "" {
		t.Skip("only root runs the tests in other modes")
	}
	const nobody = 54322 // who has no ranges
	for mode, credential := range map[string]*syscall.Credential{modeRootless: nil, modeOneID: {Uid: nobody, Gid: nobody}} {
		t.Run(mode, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.count=1", "-test.v="+fmt.Sprint(testing.Verbose()))
			cmd.Env = append(os.Environ(), modeVariable+"="+mode)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			} else if testing.Verbose() {
				t.Logf("%s", out)
			}
		})
	}
}

// newRoot makes a root file system with busybox in it, and the program as /program.
func newRoot(t *testing.T, program []byte) string {
	t.Helper()
	const busybox = "/bin/busybox"
	shell, err := os.ReadFile(busybox)
	if err != nil {
		t.Skip("no busybox: apt-get install busybox-static")
	}
	root := t.TempDir()
	for _, dir := range []string{"bin", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string][]byte{busybox: shell, "program": program} {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

// run runs a command in a container of its own, and returns what it says and its exit
// status.
func run(t *testing.T, root string, args ...string) (string, int) {
	t.Helper()
	var out strings.Builder
	r := &sandbox.Runner{Dir: filepath.Join(t.TempDir(), "state"), Mode: *entered}
	err := r.Run(t.Context(), &sandbox.Process{Root: root, Args: args, Env: []string{"PATH=/bin"}, Stdout: &out})
	exit := new(sandbox.ExitError)
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), exit.Code
}
