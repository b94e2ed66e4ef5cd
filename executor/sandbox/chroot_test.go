package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/cgroup"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
	"github.com/bobbuild/bob/snapshot/owners"
)

// modeChroot is that of a process with no more powers than those of Docker's default
// containers. Only tests whose names begin with TestInChroot run in it.
const modeChroot = "chroot"

func TestChroot(t *testing.T) {
	t.Parallel()
	if os.Getenv(modeVariable) != "" || os.Getuid() != 0 || errNotEntered != nil || sandboxtest.InUserNamespace(t) {
		t.Skip("only root can become root in a container")
	}
	const noSuchCall = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	for name, id := range map[string]*sandboxtest.Identity{
		"with Landlock":    {Docker: true, DockerPowers: true},
		"without Landlock": {Docker: true, DockerPowers: true, Filter: map[int]uint32{unix.SYS_LANDLOCK_CREATE_RULESET: noSuchCall}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"-test.count=1", "-test.timeout=20m", "-test.run=^TestInChroot"}
			if testing.Verbose() {
				args = append(args, "-test.v")
			}
			cmd := again(t, modeChroot, id, args...)
			cmd.Env = append(cmd.Env, programsVariable+"="+programs(t))
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			} else if testing.Verbose() {
				t.Logf("%s", out)
			}
		})
	}
}

// newChroot returns a runner and a root file system with the entries on one file
// system. The runner's state directory must be empty at the end.
func newChroot(t testing.TB, entries ...[2]string) (r *sandbox.Runner, root string) {
	t.Helper()
	if os.Getenv(modeVariable) != modeChroot {
		t.Skip("TestChroot runs this")
	}
	r = &sandbox.Runner{Dir: filepath.Join(t.TempDir(), "state"), Mode: isolation.Mode{Isolation: isolation.Chroot}, Copy: filecopy.Clone}
	t.Cleanup(func() {
		left, err := os.ReadDir(r.Dir)
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		for _, e := range left {
			t.Errorf("left in the state directory: %s", e.Name())
		}
	})
	// Without /proc busybox doesn't find itself to run what it is asked for.
	applets, err := exec.CommandContext(t.Context(), busybox, "--list").Output()
	if err != nil {
		t.Skipf("%v: apt-get install busybox-static", err)
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if !slices.Contains([]string{"busybox", "sh", "true", "su"}, name) {
			entries = append(entries, [2]string{"bin/" + name, "->busybox"})
		}
	}
	return r, newRoot(t, entries...)
}

// TestInChrootDevices wants devices in the layer, of which none is real that could be one
// of the machine's disks.
func TestInChrootDevices(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t, [2]string{"etc/passwd", users})
	p := shell(root, strings.Replace(makesDevices, "su u -c 'mknod /tmp/x c 1 3'", "setpriv --reuid 1000 mknod /tmp/x c 1 3", 1))
	var out, errs bytes.Buffer
	p.Dir, p.Stdout, p.Stderr = "/tmp", &out, &errs
	if err := r.Run(t.Context(), p); err != nil || out.String() != "no\nno\n" {
		t.Errorf("%v, output is %q\n%s", err, &out, &errs)
	}
	madeDevices(t, filepath.Join(root, "tmp"), owners.Harmless)
	for _, name := range []string{"d/b", "r", "l", "a"} {
		info, err := os.Lstat(filepath.Join(root, "tmp", name))
		if err != nil || !info.Mode().IsRegular() {
			t.Errorf("%v, %s is on the disk %v", err, name, info.Mode())
		}
	}
}

func TestInChrootForgedDevice(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	forge(t, r, root)
}

func TestInChrootRun(t *testing.T) {
	t.Parallel()
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		change func(*sandbox.Process)
		script string
		want   string // standard output
		err    *sandbox.ExitError
	}{
		{name: "success", script: "echo out; echo err >&2", want: "out\n"},
		{name: "exit code", script: "exit 3", err: &sandbox.ExitError{Code: 3}},
		{
			name: "signal of the kernel", script: "f() { f; }; f",
			err: &sandbox.ExitError{Code: 139, Signal: syscall.SIGSEGV},
		},
		{name: "own signal", script: "kill -9 $$", err: &sandbox.ExitError{Code: 137, Signal: syscall.SIGKILL}},
		{
			name: "signal of a child", script: "sh -c 'kill -9 $$; :'; exit $?",
			err: &sandbox.ExitError{Code: 137},
		},
		{
			name: "environment is complete", script: "env | grep -v -e SHLVL -e PWD | sort",
			change: func(p *sandbox.Process) { p.Env = []string{"A=b c", "B=\xff", "PATH=/bin", "HOME=/x"} },
			want:   "A=b c\nB=\xff\nHOME=/x\nPATH=/bin\n",
		},
		{name: "home", script: "echo $HOME", want: "/\n"},
		{name: "default directory", script: "pwd", want: "/\n"},
		{
			name: "missing directory is made", script: "pwd; stat -c %a:%u:%g .",
			change: func(p *sandbox.Process) { p.Dir, p.UID = "/a/b", 1000 }, want: "/a/b\n755:0:0\n",
		},
		{name: "root", script: "id -u; id -g; id -G", want: "0\n0\n0\n"},
		{
			name: "user", script: "id -u; id -g; id -G",
			change: func(p *sandbox.Process) { p.UID, p.GID, p.Groups = 1000, 1001, []uint32{7, 8} },
			want:   "1000\n1001\n1001 7 8\n",
		},
		{name: "host name", script: "hostname; cat /etc/hostname", want: hostname + "\n" + hostname + "\n"},
		{
			name: "hosts", script: "cat /etc/hosts; stat -c %a /etc/hosts",
			change: func(p *sandbox.Process) { p.ExtraHosts = []string{"a:10.0.0.1"} },
			want:   "127.0.0.1\tlocalhost " + hostname + "\n::1\tlocalhost ip6-localhost ip6-loopback " + hostname + "\n10.0.0.1\ta\n644\n",
		},
		{name: "umask", script: "umask; stat -c %a /etc . /dev /dev/shm /proc", want: "0022\n755\n755\n755\n1777\n555\n", change: func(p *sandbox.Process) { p.Dir = "/new" }},
		{name: "standard input is empty", script: "cat; chmod 600 /dev/null; [ -e /dev/stdin ] || echo none", want: "none\n"},
		{
			name: "limits", script: "ulimit -Sn; ulimit -Hn; ulimit -c",
			change: func(p *sandbox.Process) {
				p.Ulimits = []sandbox.Ulimit{{Name: "nofile", Soft: 99, Hard: 101}, {Name: "core"}}
			},
			want: "99\n101\n0\n",
		},
		{
			name:   "devices",
			script: "for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo $d; done; echo > /dev/null; head -c 1 /dev/urandom | wc -c; echo x > /dev/full || echo full; stat -c %a /dev/null",
			want:   "1\nfull\n666\n",
		},
		{name: "no descriptor by name", script: "echo x > /dev/stdout || echo no; [ -e /proc/self ] || echo none", want: "no\nnone\n"},
		{name: "the machine in /proc", script: "grep -c MemTotal /proc/meminfo; [ -s /proc/cpuinfo ] && echo yes", want: "1\nyes\n"},
		{name: "files of users", script: "echo x > /tmp/f; chown 7:8 /tmp/f; chmod 4755 /tmp/f; stat -c %a:%u:%g /tmp/f; mkfifo /tmp/p", want: "4755:7:8\n"},
		{name: "mount is refused", script: "mount -t tmpfs x /tmp || echo no", want: "no\n"},
		{name: "unshare is refused", script: "unshare -U true || echo no", want: "no\n"},
		{
			name: "command not found", change: func(p *sandbox.Process) { p.Args = []string{"nonesuch"} },
			err: &sandbox.ExitError{Code: 127, Reason: `exec: "nonesuch": executable file not found in $PATH`},
		},
		{
			name: "command path not found", change: func(p *sandbox.Process) { p.Args = []string{"/nonesuch"} },
			err: &sandbox.ExitError{Code: 127, Reason: `exec: "/nonesuch": stat /nonesuch: no such file or directory`},
		},
		{
			name: "command not executable", change: func(p *sandbox.Process) { p.Args = []string{"/etc/hosts"} },
			err: &sandbox.ExitError{Code: 126, Reason: `exec: "/etc/hosts": permission denied`},
		},
		{
			name: "command is a directory", change: func(p *sandbox.Process) { p.Args = []string{"/bin"} },
			err: &sandbox.ExitError{Code: 126, Reason: `exec: "/bin": is a directory`},
		},
		{name: "no program", script: "", change: func(p *sandbox.Process) { p.Args = []string{"/bin/script"} }, err: &sandbox.ExitError{Code: 255}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, root := newChroot(t)
			if err := os.WriteFile(filepath.Join(root, "bin/script"), []byte("#!/nonesuch\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(filepath.Join(root, "bin/script"), 0o755); err != nil {
				t.Fatal(err)
			}
			p := shell(root, test.script)
			if test.change != nil {
				test.change(p)
			}
			var stdout, stderr bytes.Buffer
			p.Stdout, p.Stderr = &stdout, &stderr
			err := r.Run(t.Context(), p)
			var exit *sandbox.ExitError
			switch {
			case test.err == nil && err != nil:
				t.Error(err)
			case test.err != nil && (!errors.As(err, &exit) || *exit != *test.err):
				t.Errorf("error is %v, want %v", err, test.err)
			}
			if got := stdout.String(); got != test.want {
				t.Errorf("output:\n%swant:\n%sstandard error:\n%s", got, test.want, &stderr)
			}
		})
	}
}

func TestInChrootRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*sandbox.Process)
		want   string
	}{
		{"no command", func(p *sandbox.Process) { p.Args = nil }, "no command"},
		{"missing root", func(p *sandbox.Process) { p.Root += "/nonesuch" }, "no such file"},
		{"extra host", func(p *sandbox.Process) { p.ExtraHosts = []string{"a:b"} }, "extra host"},
		{"unknown limit", func(p *sandbox.Process) { p.Ulimits = []sandbox.Ulimit{{Name: "x"}} }, "unknown resource"},
		{"limit above bob's", func(p *sandbox.Process) { p.Ulimits = []sandbox.Ulimit{{Name: "nofile", Soft: 1, Hard: 1 << 40}} }, "ulimit nofile: hard limit"},
		{"missing source", func(p *sandbox.Process) { p.Mounts = []sandbox.Mount{{Source: "/nonesuch", Target: "/a/b"}} }, "no such file"},
		{"mount on the root", func(p *sandbox.Process) { p.Mounts = []sandbox.Mount{{Kind: sandbox.Tmpfs, Target: "/"}} }, "can't be mounted on"},
		{"directory on a file", func(p *sandbox.Process) {
			p.Mounts = []sandbox.Mount{{Kind: sandbox.Tmpfs, Target: "/bin/busybox"}}
		}, "not a directory"},
		{"file as directory", func(p *sandbox.Process) { p.Dir = "/bin/busybox" }, "not a directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r, root := newChroot(t)
			before := tree(t, root)
			p := shell(root, "true")
			test.change(p)
			err := r.Run(t.Context(), p)
			var exit *sandbox.ExitError
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.As(err, &exit) {
				t.Errorf("error is %v, want one with %q", err, test.want)
			}
			if after := tree(t, root); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// TestInChrootLacks wants an error that names the mode for what was asked for and a
// chroot can't give.
func TestInChrootLacks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		asked  string
		change func(*sandbox.Process, *sandbox.Runner)
	}{
		{"RUN --security=insecure", func(p *sandbox.Process, _ *sandbox.Runner) { p.Insecure = true }},
		{"RUN --network=none", func(p *sandbox.Process, _ *sandbox.Runner) { p.Network = sandbox.None }},
		{"--network=private", func(p *sandbox.Process, _ *sandbox.Runner) { p.Network = sandbox.Private }},
		{"--shm-size", func(p *sandbox.Process, _ *sandbox.Runner) { p.ShmSize = 1 << 20 }},
		{"BUILDKIT_SANDBOX_HOSTNAME=x", func(p *sandbox.Process, _ *sandbox.Runner) { p.Hostname = "x" }},
		{"--memory, --cpus and --pids-limit", func(_ *sandbox.Process, r *sandbox.Runner) { r.Limiter = new(cgroup.Limiter) }},
	} {
		t.Run(test.asked, func(t *testing.T) {
			t.Parallel()
			r, root := newChroot(t)
			p := shell(root, "echo ran")
			var out bytes.Buffer
			p.Stdout = &out
			test.change(p, r)
			err := r.Run(t.Context(), p)
			if err == nil || !strings.HasPrefix(err.Error(), test.asked+": a RUN with --isolation=chroot hasn't ") || out.Len() > 0 {
				t.Errorf("got %v and %q", err, &out)
			}
		})
	}
}

func TestInChrootCapabilities(t *testing.T) {
	t.Parallel()
	for _, uid := range []uint32{0, 1000} {
		// Without /proc the command can't tell; its guard's children can be seen
		// from here.
		r, root := newChroot(t)
		var status string
		p := shell(root, "echo $$; read x < /tmp/go")
		p.UID = uid
		fifo := filepath.Join(root, "tmp/go")
		if err := syscall.Mkfifo(fifo, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(fifo, 0o666); err != nil {
			t.Fatal(err)
		}
		p.Stdout = writerFunc(func(b []byte) (int, error) {
			content, err := os.ReadFile("/proc/" + strings.TrimSpace(string(b)) + "/status")
			status = string(content)
			return len(b), errors.Join(err, os.WriteFile(fifo, []byte("\n"), 0))
		})
		if err := r.Run(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		const bound = "00000000a80001fb" // Docker's without CAP_NET_BIND_SERVICE, 1<<10, CAP_NET_RAW, 1<<13, and CAP_SYS_CHROOT, 1<<18
		powers := bound
		if uid != 0 {
			powers = "0000000000000000"
		}
		for _, want := range []string{
			"CapInh:\t0000000000000000\nCapPrm:\t" + powers + "\nCapEff:\t" + powers + "\nCapBnd:\t" + bound + "\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
		} {
			if !strings.Contains(status, want) {
				t.Errorf("user %d: status is\n%swant\n%s", uid, status, want)
			}
		}
	}
}

func TestInChrootNoTraces(t *testing.T) {
	t.Parallel()
	for name, entries := range roots {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, root := newChroot(t, entries...)
			before := tree(t, root)
			for _, script := range []string{"true", "exit 1", "cat /etc/resolv.conf /etc/hosts /etc/hostname > /dev/null", "echo x > /dev/x; echo > /etc/hosts"} {
				err := r.Run(t.Context(), shell(root, script))
				var exit *sandbox.ExitError
				if err != nil && (script != "exit 1" || !errors.As(err, &exit)) {
					t.Errorf("%s: %v", script, err)
				}
				if after := tree(t, root); after != before {
					t.Errorf("%s: before:\n%safter:\n%s", script, before, after)
				}
			}
		})
	}
}

func TestInChrootDaemonsDie(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	duration := unique()
	var out bytes.Buffer
	p := shell(root, fmt.Sprintf("sleep %[1]s & (setsid sleep %[1]s &) ; (setsid sh -c 'trap \"\" TERM HUP INT; setsid sleep %[1]s & kill -STOP $$' &); trap '' TERM HUP; echo started", duration))
	p.Stdout, p.Stderr = &out, &out
	if err := r.Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if out.String() != "started\n" {
		t.Errorf("output is %q", &out)
	}
	if left := processesWith(t, duration); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
	if left := deadChildren(t); len(left) > 0 {
		sandboxtest.Gone(t, func() bool { return len(deadChildren(t)) > 0 })
	}
}

func TestInChrootCancel(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	before := tree(t, root)
	duration := unique()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := shell(root, fmt.Sprintf("trap '' TERM INT HUP; (setsid sleep %[1]s &); echo ready; sleep %[1]s", duration))
	p.Stdout = writerFunc(func(b []byte) (int, error) {
		cancel()
		return len(b), nil
	})
	if err := r.Run(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want that of the context", err)
	}
	if left := processesWith(t, duration); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

func TestInChrootCancelAtAnyTime(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	before := tree(t, root)
	duration := unique()
	for i := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		if i > 0 {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), step*1<<i)
		}
		err := r.Run(ctx, shell(root, "sleep "+duration))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error is %v, want that of the context", err)
		}
	}
	if left := processesWith(t, duration); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

func BenchmarkInChroot(b *testing.B) {
	r, root := newChroot(b)
	p := &sandbox.Process{Root: root, Args: []string{"true"}, Env: []string{"PATH=/bin"}}
	for b.Loop() {
		if err := r.Run(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
}

// TestChrootNoDevices runs on a file system on which devices can't be opened.
func TestChrootNoDevices(t *testing.T) {
	t.Parallel()
	if os.Getenv(modeVariable) != "" || os.Getuid() != 0 || errNotEntered != nil || sandboxtest.InUserNamespace(t) {
		t.Skip("only root can mount it")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	cmd := again(t, modeChroot, &sandboxtest.Identity{Docker: true, DockerPowers: true}, "-test.count=1", "-test.run=^TestInNoDev")
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestInNoDev(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	var out bytes.Buffer
	p := shell(root, "cat; echo x > /dev/null && echo yes; ls /dev")
	p.Stdout, p.Stderr = &out, &out
	if err := r.Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if want := "yes\nfd\nnull\nshm\nstderr\nstdin\nstdout\n"; out.String() != want {
		t.Errorf("output is %q, want %q", &out, want)
	}
	limits, err := r.Limits()
	if err != nil || !slices.ContainsFunc(limits, func(o *obstacle.Obstacle) bool { return strings.Contains(o.Why, "/dev/null") }) {
		t.Errorf("limits are %v, %v", limits, err)
	}
}

// TestInChrootUnguardedDevices has an image bring the device of a disk to where
// nothing keeps commands from opening it.
func TestInChrootUnguardedDevices(t *testing.T) {
	t.Parallel()
	r, root := newChroot(t)
	node := filepath.Join(root, "disk")
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(root, "dev/disk"), node} { // no command sees the first
		if err := unix.Mknod(name, unix.S_IFBLK|0o600, int(unix.Mkdev(259, 1<<20-1))); err != nil {
			t.Fatal(err)
		}
	}
	_, errOpen := os.Open(node)
	err := r.Run(t.Context(), shell(root, "true"))
	if errors.Is(errOpen, unix.EPERM) || errors.Is(errOpen, unix.EACCES) {
		if err != nil {
			t.Error(err)
		}
	} else if err == nil || !strings.Contains(err.Error(), " /disk ") {
		t.Errorf("error is %v", err)
	}
	if err := os.Remove(node); err != nil {
		t.Fatal(err)
	}
	if err := r.Run(t.Context(), shell(root, "test ! -e /dev/disk")); err != nil {
		t.Error(err)
	}
}

func TestInChrootLimits(t *testing.T) {
	t.Parallel()
	r, _ := newChroot(t)
	limits, err := r.Limits()
	if err != nil {
		t.Fatal(err)
	}
	mentions := func(word string) bool {
		return slices.ContainsFunc(limits, func(o *obstacle.Obstacle) bool { return strings.Contains(o.Why, word) })
	}
	if !mentions("/proc") || mentions("Landlock") != (landlockHere() < 6) || mentions("/dev/null") {
		t.Errorf("limits are %v", limits)
	}
}
