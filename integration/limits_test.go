package integration_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
	"golang.org/x/sys/unix"
)

// delegate runs f on a thread, and so what f starts, in cgroups of v1 that belong to
// the user who runs bob, as some machines give them to whoever logs in. It skips the
// test where the machine has none.
func delegate(t *testing.T, f func(dirs []string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can delegate a cgroup")
	}
	var dirs []string
	for _, controller := range []string{"memory", "cpu", "pids"} {
		hierarchy := "/sys/fs/cgroup/" + controller
		if _, err := os.Stat(hierarchy + "/tasks"); err != nil {
			t.Skip("no cgroup v1 with the controller " + controller)
		}
		dir, err := os.MkdirTemp(hierarchy, "bob-limits-") //nolint:usetesting // a cgroup
		check(t, err)
		t.Cleanup(func() { check(t, os.Remove(dir)) })
		check(t, lab.User.Own(dir))
		dirs = append(dirs, dir)
	}
	done := make(chan error, 1)
	go func() {
		defer close(done) // however f ends the test
		runtime.LockOSThread()
		for _, dir := range dirs {
			if err := os.WriteFile(dir+"/tasks", fmt.Append(nil, unix.Gettid()), 0); err != nil {
				done <- err
				return
			}
			// The process's first thread doesn't end with the goroutine.
			defer func() {
				check(t, os.WriteFile(filepath.Dir(dir)+"/tasks", fmt.Append(nil, unix.Gettid()), 0))
			}()
		}
		f(dirs)
	}()
	check(t, <-done)
}

// TestLimits has RUN reach each limit, as a user with cgroups of his own.
func TestLimits(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{
		"context/Dockerfile": "FROM $REGISTRY/busybox\nARG RUN\nRUN eval \"$RUN\"\n",
		"context/User":       "FROM $REGISTRY/busybox\nARG RUN\nUSER 7:8\nRUN eval \"$RUN\"\n",
	})
	const memory, processes = `x=a; while true; do x=$x$x; done`, `for i in $(seq 100); do sleep 3000 & done; wait`
	build := func(run string, flags ...string) harness.Result {
		return b.bob(append([]string{"build", "--progress=plain", "--build-arg=RUN=" + run}, append(flags, "context")...)...)
	}
	delegate(t, func(dirs []string) {
		for name, test := range map[string]struct {
			run   string
			flags []string
			want  string // in the error; "": it works
		}{
			"memory":             {memory, []string{"-m", "30m"}, "exit code: 137 [(]killed[)]: out of its memory limit of 30MiB"},
			"memory of a child":  {"sh -c '" + memory + "'; exit 9", []string{"-m", "30m"}, "exit code: 9: killed: out of its memory limit of 30MiB"},
			"processes":          {processes, []string{"--pids-limit=20"}, "exit code: [0-9]+: it reached its limit of 20 processes"},
			"a fork bomb":        {`f() { f | f; }; f`, []string{"--pids-limit=50"}, "exit code: [0-9]+: it reached its limit of 50 processes"},
			"a user's processes": {processes, []string{"--pids-limit=20", "-f", "context/User"}, "exit code: [0-9]+: it reached its limit of 20 processes"},
			"enough":             {"true", []string{"-m", "1g", "--cpus=0.5", "--pids-limit=20"}, ""},
			"a failure":          {"exit 3", []string{"-m", "1g", "--pids-limit=20"}, "exit code: 3\n"},
			"none":               {"true", []string{"-m", "0", "--cpus=0", "--pids-limit=-1"}, ""},
		} {
			result := build(test.run, test.flags...)
			if (result.Code != 0) != (test.want != "") || !matches(test.want, result.Stderr) {
				t.Errorf("%s: exit code %d, want %q:\n%s", name, result.Code, test.want, result.Stderr)
			}
		}
		groups := func() (all []string) {
			for _, dir := range dirs {
				found, err := filepath.Glob(dir + "/bob-*")
				check(t, err)
				all = append(all, found...)
			}
			return all
		}
		if left := groups(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}

		seen := watchFor(" started\n")
		r := b.start(harness.Invocation{
			Args: []string{"build", "--progress=plain", "-m", "64m", "--cpus=0.5", "--pids-limit=20", "--build-arg=RUN=echo started; sleep 3000", "context"}, Stderr: seen,
		})
		r.until(t, seen.done)
		values := map[string]string{}
		for _, group := range groups() {
			for _, file := range []string{"memory.limit_in_bytes", "cpu.cfs_quota_us", "pids.max"} {
				if value, err := os.ReadFile(group + "/" + file); err == nil {
					values[file] = strings.TrimSpace(string(value))
				}
			}
			for sleeps := false; !sleeps && t.Context().Err() == nil; { // when the shell has started it
				procs, err := os.ReadFile(group + "/cgroup.procs")
				check(t, err)
				sleeps = slices.ContainsFunc(strings.Fields(string(procs)), func(pid string) bool {
					line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
					return string(line) == "sleep\x003000\x00"
				})
			}
		}
		if values["memory.limit_in_bytes"] != "67108864" || values["cpu.cfs_quota_us"] != "50000" || values["pids.max"] != "20" {
			t.Errorf("the limits are %v", values)
		}
		check(t, r.Signal(syscall.SIGKILL))
		<-r.ended
		r.Leftovers()
		if len(groups()) == 0 {
			t.Error("a killed bob left no cgroup: nothing is tested here")
		}
		if result := build("true", "-m", "1g", "--cpus=1", "--pids-limit=20"); result.Code != 0 {
			t.Errorf("the next build: exit code %d\n%s", result.Code, result.Stderr)
		}
		if left := groups(); len(left) > 0 {
			t.Errorf("a killed bob's cgroups are left: %v", left)
		}
	})
	result := build("true", "-m", "1g")
	if result.Code != 1 || !matches("RUN can't be limited: no cgroup with the controller memory is delegated to this user", result.Stderr) ||
		!matches("systemd-run --user", result.Stderr) || matches("DONE", result.Stderr) {
		t.Errorf("without a cgroup: exit code %d\n%s", result.Code, result.Stderr)
	}
}

// TestProcessLimits has bob, and a command, meet the limits of processes that bob itself
// is under: that of its user and that of its cgroup.
func TestProcessLimits(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nARG RUN\nRUN eval \"$RUN\"\n"})
	const (
		many     = `for i in $(seq 100); do sleep 3000 & done; wait`
		tooFew   = "takes 32 more processes and threads, and what its commands start: raise it to [0-9]+ or more"
		ofUser   = `limit of processes of a user [(]ulimit -u[)] is 20, .*` + tooFew
		ofCgroup = `limit of processes of the container or service [(]pids.max in .*[)] is 20, .*` + tooFew
	)
	type outcome struct {
		limit int
		run   string
		code  int
		want  string
	}
	verify := func(t *testing.T, o outcome, code int, said string) {
		t.Helper()
		if code != o.code || !matches(o.want, said) {
			t.Errorf("limit %d, RUN %s: exit code %d, want %d and %q:\n%s", o.limit, o.run, code, o.code, o.want, said)
		}
	}
	args := func(run string) []string {
		return []string{"build", "--progress=plain", "--build-arg=RUN=" + run, "context"}
	}
	t.Run("user", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root can become a user without other processes")
		}
		prlimit, err := exec.LookPath("prlimit")
		if err != nil {
			t.Skip("no prlimit: apt-get install util-linux")
		}
		bob, err := lab.Bob()
		check(t, err)
		alone := harness.Confinement{UID: 1234568}
		home, err := lab.TempDir(t.Name())
		check(t, err)
		check(t, os.Chown(home, alone.UID, alone.UID))
		env := []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "BOB_CACHE_DIR=" + filepath.Join(home, "cache"), "BOB_CACHE_SYNC=false"}
		for _, o := range []outcome{
			{20, "true", 1, ofUser},
			{200, "true", 0, ""},
			{80, many, 1, `exit code: [0-9]+: bob's user may have 80 processes [(]ulimit -u[)]: if no more could be started, raise that limit`},
			{5000, "exit 3", 1, "exit code: 3\n"},
		} {
			cmd, err := alone.Command(t.Context(), b.dir, env, append([]string{prlimit, "--nproc=" + strconv.Itoa(o.limit), bob}, args(o.run)...)...)
			check(t, err)
			said, err := cmd.CombinedOutput()
			if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
				t.Fatal(exit)
			}
			verify(t, o, cmd.ProcessState.ExitCode(), string(said))
		}
	})
	t.Run("cgroup", func(t *testing.T) {
		delegate(t, func(dirs []string) {
			for _, o := range []outcome{
				{20, "true", 1, ofCgroup},
				{200, "true", 0, ""},
				{80, many, 1, `exit code: [0-9]+: no more processes can be started in the container or service that bob runs in, whose limit is 80 [(]pids.max in .*[)]: raise it`},
				{80, "exit 3", 1, "exit code: 3\n"},
			} {
				check(t, os.WriteFile(dirs[len(dirs)-1]+"/pids.max", []byte(strconv.Itoa(o.limit)), 0))
				result := b.bob(args(o.run)...)
				verify(t, o, result.Code, result.Stderr)
			}
		})
	})
}
