package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
)

// programsVariable has the directory of the built programs below testdata, for processes
// of users who can't build them.
const programsVariable = "SANDBOX_TEST_PROGRAMS"

// programs returns the directory of the programs, built once where every user can read
// them. TestMain removes it.
func programs(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv(programsVariable); dir != "" {
		return dir
	}
	dir, err := built()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// built builds them.
var built = sync.OnceValues(func() (string, error) {
	dir := programsDir()
	// A process of the same number may have been killed before it removed its own.
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return "", err
	}
	for _, build := range []struct{ name, source, arch string }{
		{"escape", "./testdata/escape", runtime.GOARCH},
		{"owners-amd64", "./testdata/owners", "amd64"},
		{"owners-386", "./testdata/owners", "386"},
	} {
		path := filepath.Join(dir, build.name)
		cmd := exec.Command("go", "build", "-o", path, build.source)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+build.arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		if err := os.Chmod(path, 0o755); err != nil {
			return "", err
		}
	}
	return dir, os.Chmod(dir, 0o755)
})

// programsDir is where this process builds programs.
func programsDir() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("bob-programs-%d", os.Getpid()))
}

// installEscaper puts the program that tries to escape into the root file system, as
// /bin/escape.
func installEscaper(t testing.TB, root string) {
	t.Helper()
	install(t, filepath.Join(programs(t), "escape"), filepath.Join(root, "bin/escape"))
}

// landlockHere is the version of Landlock that this process has.
func landlockHere() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
}

// startVictim starts a process of another user in a process group of its own.
func startVictim(t testing.TB) int {
	t.Helper()
	const nobody = 65534
	// The test's context ends before what is registered by Cleanup is called.
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), busybox, "sleep", unique())
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		if err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") T ") {
			t.Errorf("the other process was ended or stopped: %s, %v", stat, err)
		}
		_, _ = cmd.Process.Kill(), cmd.Wait()
	})
	return cmd.Process.Pid
}

// leaveGroup moves this process to a process group whose leader has ended, as that of a
// shell that has started it in the background.
func leaveGroup(t testing.TB) {
	t.Helper()
	leader := exec.CommandContext(t.Context(), busybox, "sleep", unique())
	leader.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := leader.Start(); err != nil {
		t.Fatal(err)
	}
	err := unix.Setpgid(0, leader.Process.Pid)
	_, _ = leader.Process.Kill(), leader.Wait()
	if err != nil {
		t.Fatal(err)
	}
}

func TestInChrootEscapes(t *testing.T) {
	t.Parallel()
	leaveGroup(t)
	r, root := newChroot(t)
	installEscaper(t, root)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := "bob-test-" + unique()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", "@"+socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	// Something that isn't closed on exec, as bob may have inherited it.
	inherited, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	self, victim := strconv.Itoa(os.Getpid()), strconv.Itoa(startVictim(t))

	type attack struct {
		name, argument string
	}
	var attacks []attack
	for _, name := range []string{"double chroot", "dots", "inherited descriptor", "new user namespace", "mount proc", "file handle", "swapped device"} {
		attacks = append(attacks, attack{name, outside})
	}
	for _, name := range []string{"block device", "other block device", "memory device", "terminal device", "io_uring", "keyring", "chroot capability", "kill guard", "null of the machine", "read packets", "read datagrams"} {
		attacks = append(attacks, attack{name, ""})
	}
	for _, name := range []string{"kill", "stop", "kill by thread", "kill with dirty bits", "kill group", "kill by descriptor", "kill by owner of a pipe"} {
		attacks = append(attacks, attack{name, self})
		if landlockHere() >= 6 {
			attacks = append(attacks, attack{name, victim})
		}
	}
	for _, name := range []string{"limit", "trace", "trace as its user", "memory", "descriptor"} {
		attacks = append(attacks, attack{name, self}, attack{name, victim})
	}
	if landlockHere() >= 6 {
		attacks = append(attacks, attack{"abstract socket", socket})
	}
	null, err := os.Stat(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range attacks {
		var out bytes.Buffer
		p := &sandbox.Process{Root: root, Args: []string{"escape", a.name, a.argument}, Env: []string{"PATH=/bin"}, Stdout: &out, Stderr: &out}
		if err := r.Run(t.Context(), p); err != nil || !strings.HasPrefix(out.String(), "refused") {
			t.Errorf("%s %s: %v, %s", a.name, a.argument, err, &out)
		} else {
			t.Logf("%s %s: %s", a.name, a.argument, strings.TrimSpace(out.String()))
		}
	}
	if info, err := os.Stat(outside); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode of a file outside is %v, %v", info.Mode(), err)
	}
	if now, err := os.Stat(os.DevNull); err != nil || now.Mode() != null.Mode() {
		t.Errorf("mode of %s is %v, was %v", os.DevNull, now.Mode(), null.Mode())
	}
}

// TestInChrootSelf has a command do to its own processes what it may not do to others.
func TestInChrootSelf(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	var out bytes.Buffer
	p := shell(root, "sleep 1000 & kill -9 $!; wait $!; echo $?; trap 'echo usr1' USR1; kill -USR1 0; mknod /tmp/null c 1 3 && echo x > /tmp/null && rm /tmp/null; (sleep 1000 & kill -9 -1); echo alive")
	p.Stdout = &out
	err := r.Run(t.Context(), p)
	// kill -9 -1 ends all of the command's processes, where it doesn't end none.
	want := "137\nusr1\n"
	var exit *sandbox.ExitError
	if landlockHere() >= 6 {
		if !errors.As(err, &exit) || exit.Signal != syscall.SIGKILL || out.String() != want {
			t.Errorf("%v, %q", err, &out)
		}
	} else if err != nil || !strings.HasSuffix(out.String(), "alive\n") {
		t.Errorf("%v, %q", err, &out)
	}
}

// TestInChrootOutsideOfRoot has root file systems lead elsewhere.
func TestInChrootOutsideOfRoot(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		entries func(outside string) [][2]string
	}{
		{"etc", func(o string) [][2]string { return [][2]string{{"etc", "->" + o}} }},
		{"etc, relative", func(o string) [][2]string { return [][2]string{{"etc", "->" + strings.Repeat("../", 20) + o}} }},
		{"resolv.conf", func(o string) [][2]string { return [][2]string{{"etc/resolv.conf", "->" + o + "/file"}} }},
		{"hosts, missing", func(o string) [][2]string { return [][2]string{{"etc/hosts", "->" + o + "/missing"}} }},
		{"dev", func(o string) [][2]string { return [][2]string{{"dev", "->" + o}} }},
		{"null", func(o string) [][2]string { return [][2]string{{"dev/null", "->" + o + "/file"}} }},
		{"proc", func(o string) [][2]string { return [][2]string{{"proc", "->" + o}} }},
		{"mount target", func(o string) [][2]string { return [][2]string{{"target", "->" + o}} }},
		{"working directory", func(o string) [][2]string { return [][2]string{{"work", "->" + o}} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			outside := filepath.Join(t.TempDir(), "outside")
			if err := os.Mkdir(outside, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(outside, "file"), []byte("content"), 0o600); err != nil {
				t.Fatal(err)
			}
			r, root := newChroot(t, test.entries(outside)...)
			before, beforeOutside := tree(t, root), tree(t, outside)
			p := shell(root, "echo >> /etc/hosts; echo > /dev/null; echo x > /target/x/f")
			p.Mounts = []sandbox.Mount{{Kind: sandbox.Tmpfs, Target: "/target/x"}}
			if test.name == "working directory" {
				p.Dir = "/work/deeper"
			}
			if err := r.Run(t.Context(), p); err != nil {
				t.Error(err)
			}
			if after := tree(t, outside); after != beforeOutside {
				t.Errorf("outside before:\n%sand after:\n%s", beforeOutside, after)
			}
			if after := tree(t, root); after != before && test.name != "working directory" {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// TestInChrootKilled kills bob: what its command started must go with it.
func TestInChrootKilled(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	duration := unique()
	cmd := again(t, modeChroot, nil)
	cmd.Env = append(cmd.Env, killedVariable+"="+root, "CHROOT_DIR="+r.Dir, "CHROOT_DURATION="+duration)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	started := func() bool { return len(processesWith(t, duration)) > 0 }
	if !started() {
		t.Error("nothing was started")
	}
	secret := filepath.Join(root, "run/secret")
	if content, err := os.ReadFile(secret); err != nil || string(content) != "hush" {
		t.Errorf("secret is %q, %v", content, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	sandboxtest.Gone(t, started)
	sandboxtest.Gone(t, func() bool {
		content, err := os.ReadFile(secret)
		return err == nil && len(content) > 0
	})
	if err := os.RemoveAll(r.Dir); err != nil {
		t.Error(err)
	}
}

// runKilled is the bob of TestInChrootKilled.
func runKilled(root string) int {
	r := &sandbox.Runner{Dir: os.Getenv("CHROOT_DIR"), Mode: isolation.Mode{Isolation: isolation.Chroot}}
	sleep := "sleep " + os.Getenv("CHROOT_DURATION")
	p := shell(root, fmt.Sprintf("trap '' TERM HUP; %[1]s & (setsid %[1]s &) ; (setsid sh -c '%[1]s & kill -STOP $$' &); echo; %[1]s", sleep))
	p.Stdout = os.Stdout
	p.Mounts = []sandbox.Mount{{Kind: sandbox.Memory, Target: "/run/secret", File: sandbox.File{Content: []byte("hush"), Mode: 0o400}}}
	fmt.Fprintln(os.Stderr, r.Run(context.Background(), p))
	return 1
}

// TestInChrootGuardKilled kills the guard of a command.
func TestInChrootGuardKilled(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	before := tree(t, root)
	duration := unique()
	p := shell(root, fmt.Sprintf("(setsid sleep %[1]s &); echo $PPID; exec sleep %[1]s", duration))
	p.Stdout = writerFunc(func(b []byte) (int, error) {
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err == nil {
			sandboxtest.Gone(t, func() bool { return len(processesWith(t, duration)) < 2 })
			err = unix.Kill(pid, unix.SIGKILL)
		}
		return len(b), err
	})
	err := r.Run(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "guards the command was ended") {
		t.Errorf("error is %v", err)
	}
	sandboxtest.Gone(t, func() bool {
		return slices.ContainsFunc(processesWith(t, duration), func(string) bool { return true })
	})
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

// TestInChrootSocket has a command use a socket that it was given.
func TestInChrootSocket(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	installEscaper(t, root)
	before := tree(t, root)
	path := filepath.Join(t.TempDir(), "socket")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = fmt.Fprintln(c, "hello")
			_ = c.Close()
		}
	}()
	var out bytes.Buffer
	p := &sandbox.Process{Root: root, Args: []string{"/bin/escape", "read socket", "/run/agent"}}
	p.Stdout, p.Stderr = &out, &out
	p.Mounts = []sandbox.Mount{{Source: path, Target: "/run/agent"}}
	if err := r.Run(t.Context(), p); err != nil || out.String() != "hello\n" {
		t.Errorf("%v, %q", err, &out)
	}
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}
