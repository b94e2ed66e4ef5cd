package sandbox_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/seccomp"

	"github.com/bobbuild/bob/executor/sandbox"
)

// boundProcVariable says that the tests run where /proc is partly masked.
const boundProcVariable = "SANDBOX_TEST_BOUND_PROC"

// TestFallbacks runs a few tests as an ordinary user on a machine that refuses
// something.
func TestFallbacks(t *testing.T) {
	t.Parallel()
	if !seccomp.Enabled {
		t.Skip("built without -tags seccomp")
	}
	for _, test := range []struct {
		name   string
		change func(*identity)
		env    string
	}{
		{
			name:   "masked proc",
			change: func(id *identity) { id.Files["/proc/timer_list"] = "/dev/null" },
			env:    boundProcVariable + "=1",
		},
		{
			name:   "masked sys",
			change: func(id *identity) { id.Files["/sys/power/state"] = "/dev/null" },
		},
		{name: "no pivot_root", change: func(id *identity) { id.NoPivotRoot = true }},
		{
			name: "everything",
			change: func(id *identity) {
				id.Files["/proc/timer_list"] = "/dev/null"
				id.Files["/sys/power/state"] = "/dev/null"
				id.NoPivotRoot = true
			},
			env: boundProcVariable + "=1",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			id := ordinaryUser(t)
			test.change(id)
			for path := range id.Files {
				if _, err := os.Stat(path); err != nil {
					t.Skip(err)
				}
			}
			cmd := again(t, modeUser, id, "-test.v", "-test.run=^(TestProc|TestHostNetwork|TestNetworkNone|TestSetuid|TestDaemonsDie|TestNoTraces|TestCancel)$")
			cmd.Env = append(cmd.Env, test.env)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "--- PASS: TestProc") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func TestProc(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := &sandbox.Process{
		Root: newRoot(t), Args: []string{"/bin/busybox", "readlink", "/proc/self"}, Stdout: &out,
	}
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if own, bound := out.String() == "1\n", os.Getenv(boundProcVariable) != ""; own == bound {
		t.Errorf("/proc/self is %s, though it is bound from outside: %t", &out, bound)
	}
}

func TestNetworkNone(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := shell(newRoot(t), "ping -c 1 127.0.0.1 > /dev/null && echo up; echo x > /sys/kernel/profiling || echo read-only")
	p.Network, p.Stdout = sandbox.None, &out
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if want := "up\nread-only\n"; out.String() != want {
		t.Errorf("output is %q, want %q", &out, want)
	}
}

func TestNoSeccomp(t *testing.T) {
	t.Parallel()
	if seccomp.Enabled || errNotEntered != nil {
		t.Skip("built with seccomp, or not entered")
	}
	r := &sandbox.Runner{Dir: t.TempDir()}
	if err := r.Run(t.Context(), shell(newRoot(t), "true")); err == nil || !strings.Contains(err.Error(), "-tags seccomp") {
		t.Errorf("error is %v, want one that says how to build", err)
	}
}
