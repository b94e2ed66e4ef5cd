package snapshot_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot"
)

func TestBlob(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	for range 2 { // the second time it is there already
		w, err := s.CreateBlob()
		must(t, err)
		for _, part := range []string{"con", "", "tent"} {
			_, err := io.WriteString(w, part)
			must(t, err)
		}
		if _, err := s.OpenBlob(t.Context(), digest.FromString("content2")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open: %v", err)
		}
		d, n, err := w.Commit()
		must(t, err, w.Close())
		if d != digest.FromString("content") || n != 7 {
			t.Errorf("got %s, %d", d, n)
		}
		if _, _, err := w.Commit(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("second commit: %v", err)
		}
		f, err := s.OpenBlob(t.Context(), d)
		must(t, err)
		b, err := io.ReadAll(f)
		must(t, err, f.Close())
		if string(b) != "content" {
			t.Errorf("got %q", b)
		}
	}
	w, err := s.CreateBlob()
	must(t, err)
	_, err = io.WriteString(w, "dropped")
	must(t, err, w.Close(), w.Close())
	if _, err := s.OpenBlob(t.Context(), digest.FromString("dropped")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v", err)
	}
	if _, err := s.OpenBlob(t.Context(), "sha256:../../x"); err == nil {
		t.Error("opened a blob outside of the store")
	}
	must(t, s.Close(), s.Close())
	nothingLeft(t, dir)
}

func TestRecord(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	key := digest.FromString("key")
	if _, err := s.Record("step-1", key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read: %v", err)
	}
	must(t, s.PutRecord("step-1", key, []byte("one")), s.PutRecord("other-1", key, []byte("else")), s.PutRecord("step-1", key, []byte("two")))
	b, err := s.Record("step-1", key)
	must(t, err)
	if string(b) != "two" {
		t.Errorf("got %q", b)
	}
	for _, kind := range []string{"", "step", "step-", "step-x", "-1", "1", "Step-1", "../step-1", "step-1/x", "a b-1"} {
		if err := s.PutRecord(kind, key, nil); err == nil {
			t.Errorf("kind %q was taken", kind)
		}
	}
	if err := s.PutRecord("step-1", "sha256:../x", nil); err == nil {
		t.Error("bad key was taken")
	}
}

func TestSnapshotNames(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	for _, id := range []string{"", ".", "..", "../x", strings.Repeat("0", 64), strings.Repeat("a", 32)} {
		if sn, err := s.Snapshot(id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v, %v", id, sn, err)
		}
	}
}

func TestPrepare(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	a, err := s.Prepare(t.Context(), nil)
	must(t, err)
	if st, err := os.Stat(a.Root()); err != nil || st.Mode() != fs.ModeDir|0o755 {
		t.Errorf("root is %v, %v", st.Mode(), err)
	}
	write(t, a.Root()+"/one", "1")
	one, err := a.Commit()
	must(t, err, a.Discard())
	if _, err := a.Commit(); err == nil {
		t.Error("second commit worked")
	}
	b, err := s.Prepare(t.Context(), one)
	must(t, err)
	write(t, b.Root()+"/two", "2")
	must(t, b.Discard(), b.Discard())
	if _, err := b.Commit(); err == nil {
		t.Error("commit after discard worked")
	}
	c, err := s.Prepare(t.Context(), one)
	must(t, err)
	write(t, c.Root()+"/three", "3")
	three, err := c.Commit()
	must(t, err)
	again, err := openStore(t, dir).Snapshot(three.ID())
	must(t, err)
	wantNames(t, "tree", names(t, viewed(t, s, again)), ".", "one", "three")
	wantNames(t, "empty", names(t, viewed(t, s, nil)), ".")
	wantNames(t, "diff", tarNames(t, readDiff(t, again)), "three")

	v, err := s.View(t.Context(), three)
	must(t, err)
	if err := os.WriteFile(v.Root()+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a view: %v", err)
	}
	// Close ends whatever is open, even while it is in use.
	d, err := s.Prepare(t.Context(), three)
	must(t, err)
	f, err := os.Create(d.Root() + "/busy")
	must(t, err)
	defer f.Close()
	must(t, s.Close(), v.Close(), d.Discard())
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(mounts), dir) {
		t.Errorf("left mounted:\n%s", mounts)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "ids/*/active/[0-9a-f]*")); len(left) > 0 {
		t.Errorf("left active: %q", left)
	}
}

func TestCommitBusy(t *testing.T) {
	needMounts(t)
	s := openStore(t, t.TempDir())
	a, err := s.Prepare(t.Context(), nil)
	must(t, err)
	f, err := os.Create(a.Root() + "/f")
	must(t, err)
	if _, err := a.Commit(); !errors.Is(err, unix.EBUSY) {
		t.Errorf("commit: %v", err)
	}
	must(t, f.Close())
	_, err = a.Commit()
	must(t, err)
}

// TestKilled leaves an active snapshot and a blob behind by killing their process,
// and expects the next Open to remove them but not those of a living one.
func TestKilled(t *testing.T) {
	needMounts(t)
	const dirVar = "BOB_SNAPSHOT_TEST_KILL"
	if dir := os.Getenv(dirVar); dir != "" {
		s, err := snapshot.Open(dir, snapshot.Options{})
		must(t, err)
		a, err := s.Prepare(t.Context(), nil)
		must(t, err)
		must(t, os.MkdirAll(a.Root()+"/deep/er", 0o000))
		_, err = s.CreateBlob()
		must(t, err)
		must(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
		time.Sleep(time.Minute)
	}
	dir := t.TempDir()
	living := openStore(t, dir)
	a, err := living.Prepare(t.Context(), nil)
	must(t, err)
	w, err := living.CreateBlob()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), dirVar+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("not killed: %v\n%s", err, out)
	}
	count := func() (n int) {
		for _, p := range []string{"ids/*/active/*", "ids/*/garbage/*", "tmp/*"} {
			found, err := filepath.Glob(filepath.Join(dir, p))
			must(t, err)
			for _, f := range found {
				if !strings.HasPrefix(filepath.Base(f), ".") {
					n++
				}
			}
		}
		return n
	}
	if n := count(); n != 4 {
		t.Errorf("%d directories before, want 4", n)
	}
	must(t, openStore(t, dir).Close())
	if n := count(); n != 2 {
		t.Errorf("%d directories after, want 2", n)
	}
	write(t, a.Root()+"/alive", "")
	_, err = a.Commit()
	must(t, err)
	_, _, err = w.Commit()
	must(t, err)
}

// TestOpenRace opens and uses one store from many sides, none of which may take
// another's new directory for garbage.
func TestOpenRace(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				s, err := snapshot.Open(dir, snapshot.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				a, err := s.Prepare(t.Context(), nil)
				if err == nil {
					_, err = a.Commit()
				}
				if err := errors.Join(err, s.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestInheritance puts a store below a directory that hands a group, a set-ID bit
// and an ACL down to what is made in it; none of them may show in a snapshot.
func TestInheritance(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	must(t, os.Chown(dir, 0, 77), unix.Chmod(dir, 0o2755))
	acl := []byte{2, 0, 0, 0}
	for _, e := range [][8]byte{
		{1, 0, 7, 0, 255, 255, 255, 255},
		{2, 0, 7, 0, 44, 0, 0, 0},
		{4, 0, 5, 0, 255, 255, 255, 255},
		{16, 0, 7, 0, 255, 255, 255, 255},
		{32, 0, 5, 0, 255, 255, 255, 255},
	} {
		acl = append(acl, e[:]...)
	}
	if err := unix.Setxattr(dir, "system.posix_acl_default", acl, 0); err != nil {
		t.Log("without ACL:", err)
	}
	s := openStore(t, filepath.Join(dir, "store"))
	sn := unpack(t, s, layer(t, file("d/f", "")))
	a, err := s.Prepare(t.Context(), sn)
	must(t, err)
	must(t, os.Mkdir(a.Root()+"/n", 0o755))
	write(t, a.Root()+"/n/g", "")
	sn, err = a.Commit()
	must(t, err)
	for _, l := range append(viewed(t, s, sn), viewed(t, s, nil)...) {
		if !strings.Contains(l, " 0:0 ") || strings.Contains(l, "acl") || strings.Contains(l, " 042") {
			t.Error(l)
		}
	}
}

func TestUnsuitable(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	for _, d := range []string{"l", "u", "w", "m"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	must(t, unix.Mount("overlay", dir+"/m", "overlay", 0, "userxattr,lowerdir="+dir+"/l,upperdir="+dir+"/u,workdir="+dir+"/w"))
	s, err := snapshot.Open(dir+"/m/store", snapshot.Options{})
	must(t, err)
	if a, err := s.Prepare(t.Context(), nil); err == nil {
		must(t, a.Discard())
	} else if !strings.Contains(err.Error(), "put it on a local disk") {
		t.Error(err)
	}
	must(t, s.Close(), unix.Unmount(dir+"/m", unix.MNT_DETACH))
}

// TestWaiting has one wait for a lock that another holds, and says for whom.
func TestWaiting(t *testing.T) {
	dir := t.TempDir()
	s, other := openStore(t, dir), openStore(t, dir)
	name := digest.FromString("a step")
	release, err := s.Lock(t.Context(), name, func(int) { t.Error("waited for nobody") })
	must(t, err)
	told := make(chan int)
	got := make(chan error)
	go func() {
		release, err := other.Lock(t.Context(), name, func(pid int) { told <- pid })
		if err == nil {
			release()
		}
		got <- err
	}()
	if pid := <-told; pid != os.Getpid() {
		t.Errorf("waits for process %d, want %d", pid, os.Getpid())
	}
	release()
	must(t, <-got)
}
