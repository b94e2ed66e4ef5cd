package isolation_test

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
	"golang.org/x/sys/unix"
)

// The tests have processes enter, which they start from the same binary. They need the
// rights of root, or a user namespace.
const (
	// modeVariable says who a process is that has to enter.
	modeVariable = "ISOLATION_TEST_MODE"
	modeRoot     = "root"
	modeRootless = "rootless"
	modeUser     = "user"

	// isolationVariable is the isolation to enter in place of Namespaces.
	isolationVariable = "ISOLATION_TEST_ISOLATION"
	// probeVariable has a process do one thing instead of the tests, after it has
	// entered; see probe.
	probeVariable = "ISOLATION_TEST_PROBE"
)

// errNotEntered is why the tests are skipped, nil if they aren't.
var errNotEntered error

// entered is the mode of this process.
var entered *isolation.Mode

func TestMain(m *testing.M) {
	sandbox.Init() // has what Enter re-executes
	sandboxtest.Init()
	unix.Umask(0o077) // nothing may depend on it
	mode := os.Getenv(modeVariable)
	wanted := isolation.Kind(cmp.Or(os.Getenv(isolationVariable), string(isolation.Namespaces)))
	entered, errNotEntered = isolation.Enter(isolation.Options{Rootless: mode == modeRootless, Isolation: wanted})
	if errNotEntered != nil && mode != "" {
		fmt.Fprintln(os.Stderr, errNotEntered)
		os.Exit(124)
	}
	if name := os.Getenv(probeVariable); name != "" {
		os.Exit(probe(name))
	}
	os.Exit(m.Run())
}

// needEntered skips the test if processes can't enter here.
func needEntered(t *testing.T) {
	t.Helper()
	if errNotEntered != nil {
		t.Skip(errNotEntered)
	}
}

// again returns a command that runs this test binary with the arguments, in the mode,
// and as another user unless id is nil.
func again(t *testing.T, mode string, id *sandboxtest.Identity, args ...string) *exec.Cmd {
	t.Helper()
	cmd := sandboxtest.Again(t, id, args...)
	cmd.Env = append(cmd.Env, modeVariable+"="+mode)
	return cmd
}
