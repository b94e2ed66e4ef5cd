package isolation_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
	"golang.org/x/sys/unix"
)

// probe does one thing in an entered process and returns its exit status.
func probe(name string) int {
	name, argument, _ := strings.Cut(name, " ")
	switch name {
	case "exit":
		code, _ := strconv.Atoi(argument)
		return code
	case "kill":
		number, _ := strconv.Atoi(argument)
		_ = syscall.Kill(os.Getpid(), syscall.Signal(number))
		time.Sleep(time.Minute)
	case "mode":
		if err := json.NewEncoder(os.Stdout).Encode(entered); err != nil {
			return 1
		}
		return 0
	case "describe":
		maps, _ := os.ReadFile("/proc/self/uid_map")
		exe, _ := os.Readlink("/proc/self/exe")
		for _, variable := range os.Environ() {
			if strings.Contains(strings.ToLower(variable), "_bob_") {
				fmt.Println("environment:", variable)
			}
		}
		fmt.Println("uid:", os.Getuid(), "args:", os.Args[1:], "maps:", strings.Join(strings.Fields(string(maps)), " "))
		fmt.Fprintln(os.Stderr, "executable:", filepath.IsAbs(exe))
		return 0
	case "signals":
		received := make(chan os.Signal, 1)
		signal.Notify(received, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
		fmt.Println("ready", os.Getpid())
		if s, ok := (<-received).(syscall.Signal); ok {
			return 40 + int(s)
		}
	}
	return 99
}

// probes returns a command for each way to enter that this process can test.
func probes(t *testing.T, name string) map[string]*exec.Cmd {
	t.Helper()
	needEntered(t)
	cmds := map[string]*exec.Cmd{modeRootless: again(t, modeRootless, nil, "argument", "with space")}
	if !sandboxtest.InUserNamespace(t) {
		cmds["root"] = again(t, "root", nil, "argument", "with space")
		cmds[modeUser] = again(t, modeUser, sandboxtest.OrdinaryUser(t), "argument", "with space")
	}
	for _, cmd := range cmds {
		cmd.Env = append(cmd.Env, probeVariable+"="+name)
	}
	return cmds
}

func TestEnterStatus(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill 9": 137, "kill 15": 143} {
		for mode, cmd := range probes(t, name) {
			t.Run(name+" "+mode, func(t *testing.T) {
				t.Parallel()
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				if got := cmd.ProcessState.ExitCode(); got != want {
					t.Errorf("exit status is %d, want %d; output %q", got, want, out)
				}
			})
		}
	}
}

func TestEnterSurroundings(t *testing.T) {
	t.Parallel()
	maps := map[string]string{
		"root": "0 0 4294967295", modeRootless: "0 0 4294967295",
		modeUser: fmt.Sprintf("0 %d 1 1 700000 65536", sandboxtest.UID),
	}
	for mode, cmd := range probes(t, "describe") {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Error(err)
			}
			if want := "uid: 0 args: [argument with space] maps: " + maps[mode] + "\n"; !sandboxtest.InUserNamespace(t) && string(out) != want {
				t.Errorf("output is %q, want %q", out, want)
			}
			if want := "executable: true\n"; stderr.String() != want {
				t.Errorf("standard error is %q, want %q", &stderr, want)
			}
		})
	}
}

func TestEnterForwardsSignals(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		for mode, cmd := range probes(t, "signals") {
			t.Run(s.String()+" "+mode, func(t *testing.T) {
				t.Parallel()
				sandboxtest.Start(t, cmd)
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
				_ = cmd.Wait()
				if got, want := cmd.ProcessState.ExitCode(), 40+int(s); got != want {
					t.Errorf("exit status is %d, want %d", got, want)
				}
			})
		}
	}
}

func TestEnterInnerDiesWithOuter(t *testing.T) {
	t.Parallel()
	for mode, cmd := range probes(t, "signals") {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			pid := sandboxtest.Start(t, cmd)
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			sandboxtest.Gone(t, func() bool { return syscall.Kill(pid, 0) == nil })
		})
	}
}

func TestEnterAdvice(t *testing.T) {
	t.Parallel()
	needEntered(t)
	entry := fmt.Sprintf("%s:x:%d:%d::/tmp:/bin/sh\n", sandboxtest.Name, sandboxtest.UID, sandboxtest.UID)
	byUID := fmt.Sprintf("%d:700000:65536\n", sandboxtest.UID)
	for _, test := range []struct {
		name, passwd, ranges, path string
		want                       []string
	}{
		{
			"no newuidmap", entry, byUID, "/nonesuch",
			[]string{"newuidmap", "apt-get install uidmap"},
		},
		{
			"no ranges", entry, "somebody:200000:65536\n", "",
			[]string{sandboxtest.Name, `echo "sandboxtest:265536:65536" >> /etc/subuid`, `echo "sandboxtest:265536:65536" >> /etc/subgid`},
		},
		{
			"no ranges and no name", "", "", "",
			[]string{"UID 54321", "no entry in /etc/passwd", `echo "54321:100000:65536" >> /etc/subuid`},
		},
		{
			"no name", "", byUID, "",
			[]string{"newuidmap", "UID 54321", `>> /etc/passwd`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cmd := again(t, modeUser, sandboxtest.User(t, test.passwd, test.ranges))
			if test.path != "" {
				cmd.Env = append(cmd.Env, "PATH="+test.path)
			}
			m := modeOf(t, cmd)
			if m.Isolation != isolation.Namespaces || !m.OneID || len(m.Obstacles) != 1 {
				t.Fatalf("mode is %+v", m)
			}
			for _, want := range test.want {
				if !strings.Contains(m.Obstacles[0].Error(), want) {
					t.Errorf("obstacle lacks %q:\n%v", want, m.Obstacles[0])
				}
			}
		})
	}
}

func TestRangesByUID(t *testing.T) {
	t.Parallel()
	needEntered(t)
	if sandboxtest.InUserNamespace(t) {
		t.Skip("this user namespace has no ranges to give")
	}
	id := sandboxtest.User(t, fmt.Sprintf("%s:x:%d:%d::/tmp:/bin/sh\n", sandboxtest.Name, sandboxtest.UID, sandboxtest.UID), fmt.Sprintf("%d:700000:65536\n", sandboxtest.UID))
	cmd := again(t, modeUser, id)
	cmd.Env = append(cmd.Env, probeVariable+"=exit 0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestEnterLimit runs itself again, in a user namespace whose limit it may change.
func TestEnterLimit(t *testing.T) {
	if os.Getenv(modeVariable) == "" {
		needEntered(t)
		if out, err := again(t, modeRootless, nil, "-test.count=1", "-test.run=^TestEnterLimit$").CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	sandboxtest.LowerLimit(t)
	cmd := again(t, modeRootless, nil)
	cmd.Env = append(cmd.Env, probeVariable+"=exit 0")
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 124 || !strings.Contains(string(out), "sysctl -w user.max_user_namespaces") {
		t.Errorf("%s: %s", cmd.ProcessState, out)
	}
}

// modeOf returns the mode that the command enters. It fails the test if that, or
// something that it uses, writes to standard error.
func modeOf(t *testing.T, cmd *exec.Cmd) *isolation.Mode {
	t.Helper()
	cmd.Env = append(cmd.Env, probeVariable+"=mode")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	m := &isolation.Mode{}
	if err := json.Unmarshal(out, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestEnterFinds looks at the mode that Auto takes, and at why it takes no better
// one, on machines that refuse something.
func TestEnterFinds(t *testing.T) {
	t.Parallel()
	needEntered(t)
	for _, test := range []struct {
		name   string
		mode   string
		change func(*sandboxtest.Identity)
		want   string
		why    []string // words in each obstacle
	}{
		{"user", modeUser, func(*sandboxtest.Identity) {}, "a sandbox", nil},
		{"user with no_new_privs", modeUser, func(id *sandboxtest.Identity) { id.NoNewPrivs = true }, "a sandbox with one ID", []string{"no_new_privs"}},
		{
			"user without unshare", modeUser, func(id *sandboxtest.Identity) { id.Filter = sandboxtest.Filter(sandboxtest.Refused, unix.SYS_UNSHARE) },
			"no isolation, and no RUN",
			[]string{"a seccomp filter refuses user namespaces", "takes root"},
		},
		{
			"user without mounts", modeUser, func(id *sandboxtest.Identity) { id.Filter = sandboxtest.Filter(sandboxtest.Refused, unix.SYS_MOUNT) },
			"no isolation, and no RUN",
			[]string{"a seccomp filter refuses mounts", "takes root"},
		},
		{"root", "root", func(id *sandboxtest.Identity) { id.UID = 0 }, "a sandbox", nil},
		{"root without CAP_SYS_ADMIN", "root", func(id *sandboxtest.Identity) { id.UID, id.LessPowers = 0, true }, "a sandbox", nil},
		{
			"root without mounts", "root", func(id *sandboxtest.Identity) {
				id.UID, id.LessPowers, id.Filter = 0, true, sandboxtest.Filter(sandboxtest.Refused, unix.SYS_MOUNT)
			},
			"a chroot without namespaces",
			[]string{"root lacks CAP_SYS_ADMIN", "a seccomp filter refuses mounts"},
		},
		{
			"root with Docker's filter", "root", func(id *sandboxtest.Identity) { id.UID, id.LessPowers, id.Docker = 0, true, true },
			"a chroot without namespaces",
			[]string{"root lacks CAP_SYS_ADMIN", "a seccomp filter refuses user namespaces"},
		},
		{
			"root without powers", modeRootless, func(id *sandboxtest.Identity) { id.UID, id.Docker = 0, true },
			"no isolation, and no RUN",
			[]string{"a seccomp filter refuses user namespaces", "--rootless"},
		},
		{
			"root that may not chroot", "root", func(id *sandboxtest.Identity) {
				id.UID, id.LessPowers, id.Docker, id.Filter = 0, true, true, sandboxtest.Filter(sandboxtest.Refused, unix.SYS_CHROOT)
			},
			"no isolation, and no RUN",
			[]string{"root lacks CAP_SYS_ADMIN", "a seccomp filter refuses user namespaces", "CAP_SYS_CHROOT"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			id := sandboxtest.OrdinaryUser(t)
			test.change(id)
			cmd := again(t, test.mode, id)
			cmd.Env = append(cmd.Env, isolationVariable+"=auto")
			m := modeOf(t, cmd)
			if m.String() != test.want {
				t.Errorf("mode is %s, want %s", m, test.want)
			}
			for i, want := range test.why {
				if len(m.Obstacles) != len(test.why) || !strings.Contains(m.Obstacles[i].Why, want) {
					t.Fatalf("obstacles are %v, want %q", m.Obstacles, test.why)
				}
			}
			if m.Isolation == isolation.Namespaces {
				return
			}
			forced := again(t, test.mode, id)
			forced.Env = append(forced.Env, isolationVariable+"=sandbox", probeVariable+"=mode")
			out, err := forced.CombinedOutput()
			if err == nil || !strings.Contains(string(out), m.Obstacles[0].Error()) || strings.Count(string(out), "`bob doctor`") != 1 {
				t.Errorf("%v, want an error with %v:\n%s", err, m.Obstacles[0], out)
			}
		})
	}
}
