package sandbox_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/bobbuild/bob/executor/sandbox"
)

// modeVariable names how the tests of this process run: modeRoot and modeUser
// follow from who runs them, modeRootless is asked for.
const (
	modeVariable = "SANDBOX_TEST_MODE"
	modeRootless = "rootless"
	modeUser     = "user"
)

// notEntered is why the tests that run containers are skipped, nil if they
// aren't.
var notEntered error

func TestMain(m *testing.M) {
	sandbox.Init()
	notEntered = sandbox.Enter(sandbox.EnterOptions{Rootless: os.Getenv(modeVariable) == modeRootless})
	if notEntered != nil && os.Getenv(modeVariable) != "" {
		fmt.Fprintln(os.Stderr, notEntered)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
