package executor_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox"
)

// namespaces says why there are none, for tests to skip.
var namespaces error

func TestMain(m *testing.M) {
	sandbox.Init()
	if slices.Contains(os.Args, "-test.fuzzworker") {
		namespaces = errors.New("a fuzzing process stays where its pipes are")
	} else if _, namespaces = isolation.Enter(isolation.Options{Rootless: os.Geteuid() != 0}); namespaces != nil {
		fmt.Fprintln(os.Stderr, "tests that mount are skipped:", namespaces)
	}
	os.Exit(m.Run())
}
