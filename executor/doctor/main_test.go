package doctor_test

import (
	"os"
	"testing"

	"github.com/bobbuild/bob/executor/doctor"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
	"golang.org/x/sys/unix"
)

// limitedVariable says that a process is in a user namespace whose limits it may change.
const limitedVariable = "DOCTOR_TEST_LIMITED"

// errNotEntered is why the tests are skipped, nil if they aren't. They enter since they
// mount, and have processes that don't enter examine the machine.
var errNotEntered error

func TestMain(m *testing.M) {
	sandbox.Init()
	doctor.Init()
	sandboxtest.Init()
	unix.Umask(0o077) // nothing may depend on it
	if encoded := os.Getenv(examineVariable); encoded != "" {
		os.Exit(examine(encoded))
	}
	_, errNotEntered = isolation.Enter(isolation.Options{Rootless: os.Getenv(limitedVariable) != "", Isolation: isolation.Namespaces})
	os.Exit(m.Run())
}

// needEntered skips the test if this process could not enter.
func needEntered(t *testing.T) {
	t.Helper()
	if errNotEntered != nil {
		t.Skip(errNotEntered)
	}
}

// ordinaryUser returns a user with all that a sandbox takes.
func ordinaryUser(t *testing.T) *sandboxtest.Identity {
	t.Helper()
	needEntered(t)
	return sandboxtest.OrdinaryUser(t)
}
