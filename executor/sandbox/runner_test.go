package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
)

func TestRun(t *testing.T) {
	t.Parallel()
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
		{
			name: "signal of a child", script: "sh -c 'kill -9 $$; :'; exit $?",
			err: &sandbox.ExitError{Code: 137},
		},
		{
			name: "environment is complete", script: "env | grep -v -e SHLVL -e PWD | sort",
			change: func(p *sandbox.Process) { p.Env = []string{"A=b c", "PATH=/bin", "HOME=/x"} },
			want:   "A=b c\nHOME=/x\nPATH=/bin\n",
		},
		{name: "default directory", script: "pwd", want: "/\n"},
		{
			name: "directory", script: "pwd",
			change: func(p *sandbox.Process) { p.Dir = "/tmp" }, want: "/tmp\n",
		},
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
		{
			name: "capabilities of root", script: "grep -E 'Cap|Secc.*p:|NoNew' /proc/self/status",
			want: "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n" +
				"CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n",
		},
		{
			name: "capabilities of a user", script: "grep -E 'Cap|Secc.*p:|NoNew' /proc/self/status",
			change: func(p *sandbox.Process) { p.UID = 1 },
			want: "CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n" +
				"CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n",
		},
		{name: "own process IDs", script: "echo $$; ls /proc > /tmp/l; grep -c '^[0-9]' /tmp/l", want: "1\n2\n"},
		{name: "default host name", script: "hostname; cat /etc/hostname", want: "bob\nbob\n"},
		{
			name: "hosts", script: "hostname; cat /etc/hosts",
			change: func(p *sandbox.Process) {
				p.Hostname = "box"
				p.ExtraHosts = []string{"a:10.0.0.1", "b:::2", "c:[::3]"}
			},
			want: "box\n127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback box\n" +
				"10.0.0.1\ta\n::2\tb\n::3\tc\n",
		},
		{name: "host files are read-only", script: "echo >> /etc/hosts || echo no", want: "no\n"},
		{name: "umask", script: "umask; stat -c %a /etc . /etc/hosts", want: "0022\n755\n755\n644\n", change: func(p *sandbox.Process) { p.Dir = "/new" }},
		{name: "standard input is empty", script: "cat; readlink /proc/self/fd/0", want: "/dev/null\n"},
		{
			name: "descriptors", script: "ls /proc/self/fd | tr '\\n' ' '",
			want: "0 1 2 3 ", // 3 is the directory itself
		},
		{
			name: "no network", script: "ls /sys/class/net; cat /sys/class/net/lo/flags; grep -c : /proc/net/dev",
			change: func(p *sandbox.Process) { p.Network = sandbox.None }, want: "lo\n0x9\n1\n",
		},
		{
			name: "limits", script: "ulimit -Sn; ulimit -Hn; ulimit -c",
			change: func(p *sandbox.Process) {
				p.Ulimits = []sandbox.Ulimit{{Name: "nofile", Soft: 99, Hard: 101}, {Name: "core"}}
			},
			want: "99\n101\n0\n",
		},
		{name: "default /dev/shm", script: "df -k /dev/shm | awk 'END { print $2 }'", want: "65536\n"},
		{
			name: "/dev/shm", script: "df -k /dev/shm | awk 'END { print $2 }'",
			change: func(p *sandbox.Process) { p.ShmSize = 3 << 20 }, want: "3072\n",
		},
		{
			name:   "masked paths are empty",
			script: "for f in /proc/kcore /proc/keys /proc/timer_list; do [ ! -e $f ] || head -c 9 $f; done; ls /sys/firmware",
		},
		{
			name:   "read-only paths",
			script: "echo 1 > /proc/sys/kernel/domainname || echo no; echo h > /proc/sysrq-trigger || echo no; echo 1 > /sys/kernel/profiling || echo no",
			want:   "no\nno\nno\n",
		},
		{
			name:   "devices",
			script: "for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo $d; done; echo > /dev/null; head -c 1 /dev/urandom | wc -c; echo x > /dev/full || echo full; [ -c /dev/ptmx ]; ls -d /dev/pts /dev/shm /dev/mqueue; echo y > /dev/stdout",
			want:   "1\nfull\n/dev/mqueue\n/dev/pts\n/dev/shm\ny\n",
		},
		{
			name:   "devices of the host can't be changed",
			script: "chmod 600 /dev/null || chown 1 /dev/null || rm /dev/null || echo no", want: "no\n",
		},
		{
			name:   "devices can't be opened elsewhere",
			script: "for d in /tmp /dev /dev/shm; do mknod $d/n c 1 5; head -c 1 $d/n | wc -c; done 2> /dev/null", want: "0\n0\n0\n",
		},
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
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if oneID() && (test.name == "capabilities of a user" || test.name == "devices can't be opened elsewhere") {
				t.Skip("with one ID every command has root's capabilities, and devices are files")
			}
			p := shell(newRoot(t), test.script)
			if test.change != nil {
				test.change(p)
			}
			var stdout, stderr bytes.Buffer
			p.Stdout, p.Stderr = &stdout, &stderr
			err := newRunner(t).Run(t.Context(), p)
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

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*sandbox.Process)
		want   string
	}{
		{"no root", func(p *sandbox.Process) { p.Root = "" }, "no root file system"},
		{"missing root", func(p *sandbox.Process) { p.Root += "/nonesuch" }, "no such file"},
		{"no command", func(p *sandbox.Process) { p.Args = nil }, "no command"},
		{"relative directory", func(p *sandbox.Process) { p.Dir = "x" }, "not absolute"},
		{"extra host", func(p *sandbox.Process) { p.ExtraHosts = []string{"a:b"} }, "extra host"},
		{"extra host line", func(p *sandbox.Process) { p.ExtraHosts = []string{"a\nb:1.1.1.1"} }, "extra host"},
		{"unknown limit", func(p *sandbox.Process) { p.Ulimits = []sandbox.Ulimit{{Name: "x"}} }, "unknown resource"},
		{
			"inverted limit",
			func(p *sandbox.Process) { p.Ulimits = []sandbox.Ulimit{{Name: "nofile", Soft: 2, Hard: 1}} },
			"above hard limit",
		},
		{
			"missing source",
			func(p *sandbox.Process) { p.Mounts = []sandbox.Mount{{Source: "/nonesuch", Target: "/a/b"}} },
			"no such file",
		},
		{
			"mount on the root",
			func(p *sandbox.Process) { p.Mounts = []sandbox.Mount{{Source: "/", Target: "/"}} },
			"can't be mounted on",
		},
		{"file as directory", func(p *sandbox.Process) { p.Dir = "/bin/busybox" }, "not a directory"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			root := newRoot(t)
			before := tree(t, root)
			p := shell(root, "true")
			test.change(p)
			err := newRunner(t).Run(t.Context(), p)
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

func TestResolverConfiguration(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var got bytes.Buffer
	p := shell(newRoot(t), "cat /etc/resolv.conf")
	p.Stdout = &got
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got:\n%swant:\n%s", &got, want)
	}
}

func TestHostNetwork(t *testing.T) {
	t.Parallel()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, i := range interfaces {
		want = append(want, i.Name)
	}
	var out bytes.Buffer
	p := shell(newRoot(t), "sed -n 's/ *\\(.*\\):.*/\\1/p' /proc/net/dev")
	p.Stdout = &out
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	got := strings.Fields(out.String())
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("interfaces are %q, want %q", got, want)
	}
}

func TestSetuid(t *testing.T) {
	t.Parallel()
	root := newRoot(t, [2]string{"etc/passwd", "root::0:0::/:/bin/sh\nu:x:1000:1000::/:/bin/sh\n"})
	if err := os.Chmod(filepath.Join(root, "bin/busybox"), 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p := shell(root, "/bin/su -c 'id -u; grep CapEff /proc/self/status'")
	p.UID, p.GID = 1000, 1000
	p.Stdout, p.Stderr = &out, &out
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	want := "0\nCapEff:\t00000000a80425fb\n"
	if os.Getenv(noUserNamespaceVariable) != "" {
		want = "0\nCapEff:\t00000000a80401fb\n" // without those over bob's network
	}
	if out.String() != want {
		t.Errorf("output is %q, want %q", &out, want)
	}
}

func TestMounts(t *testing.T) {
	t.Parallel()
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("content\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	root := newRoot(t, [2]string{"link", "->/new/place"})
	before := tree(t, root)
	var out bytes.Buffer
	p := shell(root, "cat /a/b/f /dev/pipes/f /new/place/f; echo > /a/b/g || echo no; echo more > /new/place/g; touch /dev/pipes/f || echo no")
	p.Mounts = []sandbox.Mount{
		{Source: host, Target: "/a/b", ReadOnly: true},
		{Source: filepath.Join(host, "f"), Target: "/dev/pipes/f", ReadOnly: true},
		{Source: host, Target: "/link"},
	}
	p.Stdout = &out
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if want := "content\ncontent\ncontent\nno\nno\n"; out.String() != want {
		t.Errorf("output is %q, want %q", &out, want)
	}
	if got, err := os.ReadFile(filepath.Join(host, "g")); err != nil || string(got) != "more\n" {
		t.Errorf("written through the mount: %q, %v", got, err)
	}
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

func TestConcurrentRuns(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	var wg sync.WaitGroup
	for i := range 8 {
		root := newRoot(t)
		wg.Go(func() {
			var out bytes.Buffer
			p := shell(root, fmt.Sprintf("echo %d; exit %d", i, i))
			p.Stdout, p.Stderr = &out, &out
			err := r.Run(t.Context(), p)
			var exit *sandbox.ExitError
			if i > 0 && (!errors.As(err, &exit) || exit.Code != i) || i == 0 && err != nil {
				t.Errorf("run %d: %v", i, err)
			}
			if out.String() != strconv.Itoa(i)+"\n" {
				t.Errorf("run %d: output %q", i, &out)
			}
		})
	}
	wg.Wait()
}

// counter counts what is written to it.
type counter struct {
	total   int64
	largest int
}

func (c *counter) Write(b []byte) (int, error) {
	c.total += int64(len(b))
	c.largest = max(c.largest, len(b))
	return len(b), nil
}

func TestLongLine(t *testing.T) {
	t.Parallel()
	const size = 100 << 20
	var c counter
	p := shell(newRoot(t), fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", size))
	p.Stdout = &c
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if c.total != size || c.largest > 1<<20 {
		t.Errorf("%d bytes in pieces of up to %d, want %d in small ones", c.total, c.largest, size)
	}
}

// brokenWriter fails.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestBrokenWriter(t *testing.T) {
	t.Parallel()
	p := shell(newRoot(t), "echo x; sleep 1000")
	p.Stdout = brokenWriter{}
	if err := newRunner(t).Run(t.Context(), p); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error is %v, want that of the writer", err)
	}
}

// processesWith returns the processes that have the argument.
func processesWith(t testing.TB, argument string) []string {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, name := range names {
		if args, err := os.ReadFile(name); err == nil && strings.Contains(string(args), argument) {
			found = append(found, strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}

// unique returns a duration that no other test sleeps.
func unique() string {
	return strconv.FormatInt(1e6+int64(os.Getpid())*1000+sleeps.Add(1), 10)
}

var sleeps atomic.Int64

func TestDaemonsDie(t *testing.T) {
	t.Parallel()
	duration := unique()
	var out bytes.Buffer
	p := shell(newRoot(t), fmt.Sprintf("sleep %[1]s & (setsid sleep %[1]s &) ; trap '' TERM HUP; echo started", duration))
	p.Stdout, p.Stderr = &out, &out
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if out.String() != "started\n" {
		t.Errorf("output is %q", &out)
	}
	if left := processesWith(t, duration); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
	for _, pid := range deadChildren(t) {
		sandboxtest.Gone(t, func() bool { return slices.Contains(deadChildren(t), pid) })
	}
}

// deadChildren returns the children of this process that have ended and were not
// waited for, or not yet.
func deadChildren(t testing.TB) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var dead []string
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		if strings.HasPrefix(after, "Z "+strconv.Itoa(os.Getpid())+" ") {
			dead = append(dead, name)
		}
	}
	return dead
}

// writerFunc is a writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestCancel(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	before := tree(t, root)
	duration := unique()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := shell(root, fmt.Sprintf("trap '' TERM INT HUP; (setsid sleep %[1]s &); echo ready; sleep %[1]s", duration))
	p.Stdout = writerFunc(func(b []byte) (int, error) {
		cancel()
		return len(b), nil
	})
	if err := newRunner(t).Run(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want that of the context", err)
	}
	if left := processesWith(t, duration); len(left) > 0 {
		t.Errorf("still running: %q", left)
	}
	if after := tree(t, root); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
}

func TestCancelAtAnyTime(t *testing.T) {
	t.Parallel()
	root := newRoot(t)
	before := tree(t, root)
	r := newRunner(t)
	duration := unique()
	for i := range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		if i > 0 {
			cancel()
			ctx, cancel = context.WithTimeout(t.Context(), step*1<<i)
		}
		err := r.Run(ctx, shell(root, "sleep "+duration))
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "\n") { // more than that one
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

// step is the shortest time after which a run is cancelled, in nanoseconds.
const step = 50_000

func BenchmarkRun(b *testing.B) {
	r := newRunner(b)
	p := &sandbox.Process{Root: newRoot(b), Args: []string{"true"}, Env: []string{"PATH=/bin"}}
	for b.Loop() {
		if err := r.Run(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
}
