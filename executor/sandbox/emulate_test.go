package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
	"github.com/bobbuild/bob/snapshot/owners"
)

// oneID reports whether the tests run with one ID.
func oneID() bool { return os.Getenv(modeVariable) == modeOneID }

// users are the accounts of the tests below.
const users = "root::0:0::/:/bin/sh\nu:x:1000:1001::/tmp:/bin/sh\nv:x:7:8::/tmp:/bin/sh\n"

// newUserRoot is newRoot with accounts, groups and all of busybox's programs.
func newUserRoot(t testing.TB) string {
	t.Helper()
	root := newRoot(t, [2]string{"etc/passwd", users}, [2]string{"etc/group", "root:x:0:\ng:x:1001:\nh:x:8:u\n"})
	for _, name := range []string{"cat", "chmod", "chown", "chroot", "cp", "id", "ln", "ls", "mkdir", "mkfifo", "mknod", "mv", "readlink", "rm", "rmdir", "setsid", "sleep", "stat", "tar", "touch"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestOwners runs in every mode and wants the same of each.
func TestOwners(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, script, want string }{
		{"chown", "touch f; chown 5:6 f; chown :9 f; stat -c %u:%g f", "5:9\n"},
		{"chown of a link", "ln -s nowhere l; chown -h 5:6 l; stat -c %u:%g l; mv l m; stat -c %u:%g m", "5:6\n5:6\n"},
		{"chown through links", "mkdir d; touch d/f; ln -s /tmp/d e; ln -s ../tmp/e/f l; chown 5:6 l; stat -c %u:%g d/f", "5:6\n"},
		{"chown of a directory", "mkdir d; chown 5:6 d; chmod 2750 d; stat -c %u:%g:%a d; touch d/f; mkdir d/e; stat -c %u:%g:%a d/f d/e", "5:6:2750\n0:6:644\n0:6:2755\n"},
		{"chown of a fifo", "mkfifo p; chown 5:6 p; stat -c %u:%g:%F p", "5:6:fifo\n"},
		{"chown of a descriptor", "exec 4>f; chown 5:6 /proc/self/fd/4; chmod 640 /dev/fd/4; stat -c %u:%g:%a f", "5:6:640\n"},
		{"chown of what is not there", "chown 5 f 2> /dev/null || echo $?; chown 5 /etc/passwd/f 2> /dev/null || echo $?", "1\n1\n"},
		{"set-ID bits go with the owner", "touch f; chmod 6755 f; stat -c %a f; chown 5 f; stat -c %a f; chmod 4711 f; chmod 711 f; stat -c %a f", "6755\n755\n711\n"},
		{"modes without rights", "touch f; chown 5 f; chmod 0 f; stat -c %u:%a f; chmod 444 f; stat -c %u:%a f; chmod 600 f; stat -c %a f", "5:0\n5:444\n600\n"},
		{"hard links", "touch f; ln f g; chown 5:6 g; stat -c %u:%g f", "5:6\n"},
		{"copies", "touch f; ln -s x l; chown 5:6 f; chown -h 7:8 l; cp -a f g; cp -a l m; stat -c %u:%g g m", "5:6\n7:8\n"},
		{"archives", "touch f; chown 5:6 f; tar -cf a f; rm f; tar -xf a; stat -c %u:%g f", "5:6\n"},
		{"files of a user", "chmod 777 .; su u -c 'touch f; mkdir d; ln -s x l; mkfifo p; umask 77; echo > g'; stat -c %u:%g:%a f d p g; stat -c %u:%g l", "1000:1001:644\n1000:1001:755\n1000:1001:644\n1000:1001:600\n1000:1001\n"},
		{"what a user may not change", "touch f; su u -c 'chown 5 f || chmod 777 f || touch g; chown 1000:8 g; chown 5 g; chown :9 g'  2> /dev/null; stat -c %u:%g:%a f g", "0:0:644\n1000:8:644\n"},
		{"users", "su u -c 'id -u; id -g; id -G'; su v -c id", "1000\n1001\n1001 8\nuid=7(v) gid=8(h) groups=8(h)\n"},
		{"a user of a new root", "mkdir -p r/bin r/etc r/tmp; cp -a /bin/. r/bin; cp /etc/passwd r/etc; chroot r sh -c 'cd /tmp; mkdir -p /d; touch /d/f; ln -s ../../../d/f l; chown 5:6 l'; stat -c %u:%g r/d/f", "5:6\n"},
		{"a background process without parent", "su u -c '(sleep 0.1; id -u > f) & exit'; until [ -s f ]; do sleep 0.05; done; cat f", "1000\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var out, errs bytes.Buffer
			p := shell(newUserRoot(t), test.script)
			p.Dir, p.Stdout, p.Stderr = "/tmp", &out, &errs
			if err := newRunner(t).Run(t.Context(), p); err != nil || out.String() != test.want {
				t.Errorf("%v, output is %q, want %q\n%s", err, &out, test.want, &errs)
			}
		})
	}
}

// TestDevices wants devices that can't be opened and are in the layer all the same. As one
// shows in a command, an emulation of owners tells; elsewhere it is a file there, if the
// kernel makes none.
func TestDevices(t *testing.T) {
	t.Parallel()
	root := newUserRoot(t)
	var out bytes.Buffer
	p := shell(root, makesDevices)
	p.Dir, p.Stdout = "/tmp", &out
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if want := "no\nno\n"; out.String() != want {
		t.Errorf("output is %q, want %q", &out, want)
	}
	madeDevices(t, filepath.Join(root, "tmp"), owners.Recording(oneID()))
}

// makesDevices is a script that makes devices by paths of all kinds, and says no twice.
const makesDevices = "mkdir d; mknod n c 1 3; mknod -m 660 d/b b 8 1; chown 5:6 d/b; su u -c 'mknod /tmp/x c 1 3' 2> /dev/null || echo no; " +
	"cd d; mknod ../r c 5 1; chmod 4711 ../r; ln -s .. l; mknod l/l b 0 0; mkfifo p; mv ../n n; echo x > n; mknod n c 1 3 2> /dev/null || echo no; mknod /tmp/a b 4095 1048575"

// madeDevices wants in dir what makesDevices makes.
func madeDevices(t *testing.T, dir string, keeper owners.Keeper) {
	t.Helper()
	for name, want := range map[string]unix.Stat_t{
		"d/n": {Mode: unix.S_IFCHR | 0o644, Rdev: unix.Mkdev(1, 3)},
		"d/b": {Mode: unix.S_IFBLK | 0o660, Rdev: unix.Mkdev(8, 1), Uid: 5, Gid: 6},
		"d/p": {Mode: unix.S_IFIFO | 0o644},
		"r":   {Mode: unix.S_IFCHR | 0o4711, Rdev: unix.Mkdev(5, 1)},
		"l":   {Mode: unix.S_IFBLK | 0o644},
		"a":   {Mode: unix.S_IFBLK | 0o644, Rdev: unix.Mkdev(4095, 1<<20-1)},
	} {
		var st unix.Stat_t
		err := keeper.Fstatat(unix.AT_FDCWD, filepath.Join(dir, name), &st)
		if got := (unix.Stat_t{Mode: st.Mode, Rdev: st.Rdev, Uid: st.Uid, Gid: st.Gid}); err != nil || got != want {
			t.Errorf("%s: %v, it is %o %x of %d:%d, want %o %x", name, err, got.Mode, got.Rdev, got.Uid, got.Gid, want.Mode, want.Rdev)
		}
	}
}

// TestForgedDevice has a user try to make devices of his files.
func TestForgedDevice(t *testing.T) {
	t.Parallel()
	if os.Getenv(modeVariable) == "" && !sandboxtest.InUserNamespace(t) {
		t.Skip("nothing is recorded by root")
	}
	if oneID() {
		t.Skip("no user is kept from what root may do")
	}
	root := newUserRoot(t)
	forge(t, newRunner(t), root)
}

func forge(t *testing.T, r *sandbox.Runner, root string) {
	t.Helper()
	installEscaper(t, root)
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	p := &sandbox.Process{Root: root, Args: []string{"escape", "forge"}, Env: []string{"PATH=/bin"}, UID: 1000, GID: 1001, Stdout: &out, Stderr: &out}
	if err := r.Run(t.Context(), p); err != nil || !strings.HasPrefix(out.String(), "refused") || strings.Contains(out.String(), "own") {
		t.Errorf("%v, %s", err, &out)
	}
}

// TestDeviceSeen wants what a command sees of its devices to be what is recorded.
func TestDeviceSeen(t *testing.T) {
	t.Parallel()
	if !oneID() {
		t.Skip("elsewhere a recorded device is a file to the command")
	}
	root := newUserRoot(t)
	var out bytes.Buffer
	p := shell(root, "mknod n c 1 3; mknod -m 660 b b 8 1; chown 5:6 b; stat -c %u:%g:%a:%F:%t:%T n b; mknod w c 0 0 || echo no; ls")
	p.Dir, p.Stdout = "/tmp", &out
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if want := "0:0:644:character special file:1:3\n5:6:660:block special file:8:1\nno\nb\nn\n"; out.String() != want {
		t.Errorf("output is %q, want %q", &out, want)
	}
}

// TestOwnersOutside tries to change files outside of the container by every name
// that they could have.
func TestOwnersOutside(t *testing.T) {
	t.Parallel()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	root := newUserRoot(t)
	script := strings.ReplaceAll(`
		mkdir -p /j/bin /tmp/d; cp -a /bin/. /j/bin; ln -s OUT l; ln -s /proc/self/root m; ln -s /proc/1/root n
		for p in OUT ../../../../../../../..OUT l mOUT nOUT /proc/self/rootOUT /proc/self/cwd/../../../../..OUT; do chown 5:6 $p; chmod 4711 $p; done
		for p in /proc/[0-9]*; do chown 5:6 $p/rootOUT; chmod 4711 $p/rootOUT; for f in $p/fd/*; do chown 5:6 $f; chown 5:6 $f/OUT; done; done
		cd /tmp/d; chroot /j sh -c 'chown 5:6 OUT ../../../../../..OUT /..OUT'
		(i=0; while [ $i -lt 300 ]; do ln -sfn OUT x; ln -sfn /tmp x; i=$((i+1)); done) &
		i=0; while [ $i -lt 100 ]; do chown -R 5:6 x/; chown 5:6 x; i=$((i+1)); done
		wait`, "OUT", outside)
	p := shell(root, "("+script+") > /dev/null 2>&1; true")
	p.Dir = "/tmp"
	var before, after unix.Stat_t
	if err := unix.Stat(outside, &before); err != nil {
		t.Fatal(err)
	}
	if err := newRunner(t).Run(t.Context(), p); err != nil {
		t.Error(err)
	}
	if err := owners.Recording(oneID()).Fstatat(unix.AT_FDCWD, outside, &after); err != nil || after.Uid != 0 || after.Gid != 0 || after.Mode != before.Mode || after.Ctim != before.Ctim {
		t.Errorf("%v, a file outside is %+v, was %+v", err, after, before)
	}
}

// TestOneIDVisibleProcesses runs the former where a container sees the processes of
// the machine.
func TestOneIDVisibleProcesses(t *testing.T) {
	t.Parallel()
	if !seccomp.Enabled {
		t.Skip("built without -tags seccomp")
	}
	id := withoutRanges(t)
	id.Files["/proc/timer_list"] = "/dev/null"
	cmd := again(t, modeOneID, id, "-test.v", "-test.run=^(TestOwnersOutside|TestOwners|TestOtherProcesses)$")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestOwnersOutside") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOwnersAtOnce has many processes change owners at the same time.
func TestOwnersAtOnce(t *testing.T) {
	t.Parallel()
	const processes, files = 30, 20
	root := newUserRoot(t)
	p := shell(root, fmt.Sprintf(
		`i=1; while [ $i -le %d ]; do (j=1; while [ $j -le %d ]; do echo > $i.$j; chown $i:$j $i.$j; [ $(stat -c %%u:%%g $i.$j) = $i:$j ] || echo $i.$j; j=$((j+1)); done) & i=$((i+1)); done; wait`, processes, files))
	var out bytes.Buffer
	p.Dir, p.Stdout, p.Stderr = "/tmp", &out, &out
	if err := newRunner(t).Run(t.Context(), p); err != nil || out.Len() > 0 {
		t.Errorf("%v, %s", err, &out)
	}
	for i := 1; i <= processes; i++ {
		for j := 1; j <= files; j++ {
			var st unix.Stat_t
			err := owners.Recording(oneID()).Fstatat(unix.AT_FDCWD, filepath.Join(root, "tmp", fmt.Sprintf("%d.%d", i, j)), &st)
			if err != nil || st.Uid != uint32(i) || st.Gid != uint32(j) {
				t.Fatalf("%v, %d.%d belongs to %d:%d", err, i, j, st.Uid, st.Gid)
			}
		}
	}
}

// TestSignalsAmidOwners has signals reach all threads while files are made for a user, whose
// descriptors are handed over.
func TestSignalsAmidOwners(t *testing.T) { //nolint:paralleltest // the signals reach the threads of other tests
	root := newUserRoot(t)
	if err := os.Chmod(filepath.Join(root, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	p := shell(root, `i=1; while [ $i -le 1500 ]; do echo $i > $i; read x < $i; [ "$x" = $i ] || echo $i: $x; i=$((i+1)); done`)
	var out bytes.Buffer
	p.UID, p.GID, p.Dir, p.Stdout, p.Stderr = 7, 8, "/tmp", &out, &out
	r := newRunner(t)
	ended := make(chan error)
	go func() { ended <- r.Run(t.Context(), p) }()
	for {
		select {
		case err := <-ended:
			if err != nil || out.Len() > 0 {
				t.Errorf("%v, %s", err, &out)
			}
			return
		default:
		}
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			tid, err := strconv.Atoi(thread.Name())
			if err != nil {
				t.Fatal(err)
			}
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG) // it may have ended
		}
	}
}

// TestCancelAmidOwners ends containers whose calls are being answered, after which
// nothing of them may be left open.
func TestCancelAmidOwners(t *testing.T) {
	t.Parallel()
	r := newRunner(t)
	root := newUserRoot(t)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		p := shell(root, "touch f; for i in 1 2 3 4; do (while :; do chown 5:6 f; done) & done; echo; wait")
		p.Dir, p.Stdout = "/tmp", writerFunc(func(b []byte) (int, error) {
			cancel()
			return len(b), nil
		})
		if err := r.Run(ctx, p); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
	}
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, root+"/tmp/") {
			t.Errorf("%s is left open", to)
		}
	}
}
