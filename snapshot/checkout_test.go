package snapshot_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot"
)

func copyStore(t testing.TB, dir string) *snapshot.Store {
	t.Helper()
	return openStoreWith(t, dir, snapshot.Options{Snapshotter: snapshot.Copy})
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Ino
}

// TestChainIsCopiedOnce: what a step has committed is what the next one and all
// views go on with; a second one beside it has its own files.
func TestChainIsCopiedOnce(t *testing.T) {
	needOwners(t)
	s := copyStore(t, t.TempDir())
	base := unpack(t, s, baseLayers(t)...)
	a, err := s.Prepare(t.Context(), base)
	must(t, err)
	first := inodeOf(t, a.Root()+"/f")
	write(t, a.Root()+"/one", "1")
	one, err := a.Commit()
	must(t, err)
	v, err := s.View(t.Context(), one)
	must(t, err)
	w, err := s.View(t.Context(), one)
	must(t, err)
	if v.Root() != w.Root() || inodeOf(t, v.Root()+"/f") != first {
		t.Error("the views have copies of their own")
	}
	b, err := s.Prepare(t.Context(), one)
	must(t, err)
	if inodeOf(t, b.Root()+"/f") == first {
		t.Error("a step writes to what is viewed")
	}
	sameTree(t, "copied anew", list(t, b.Root()), list(t, v.Root()))
	must(t, b.Discard(), v.Close(), w.Close())
	c, err := s.Prepare(t.Context(), one)
	must(t, err)
	if inodeOf(t, c.Root()+"/f") != first {
		t.Error("the chain was copied again")
	}
	must(t, os.Remove(c.Root()+"/one"))
	two, err := c.Commit()
	must(t, err)
	wantNames(t, "second step", tarNames(t, readDiff(t, two)), ".wh.one")
	wantNames(t, "first step", tarNames(t, readDiff(t, one)), "one")
}

// TestManyCheckouts: a store keeps few that are not used, and none when it is closed.
func TestManyCheckouts(t *testing.T) {
	needOwners(t)
	dir := t.TempDir()
	s := copyStore(t, dir)
	for range 12 {
		a, err := s.Prepare(t.Context(), nil)
		must(t, err)
		_, err = a.Commit()
		must(t, err)
	}
	count := func() int {
		found, err := filepath.Glob(filepath.Join(dir, "ids/*/active/[0-9a-f]*"))
		must(t, err)
		return len(found)
	}
	if n := count(); n > 4 {
		t.Errorf("%d are kept", n)
	}
	must(t, s.Close())
	if n := count(); n > 0 {
		t.Errorf("%d are left", n)
	}
}

// TestQuickChange: a change that comes as soon as there is a file to change, and
// leaves its size and time, is seen.
func TestQuickChange(t *testing.T) {
	needOwners(t)
	s := copyStore(t, t.TempDir())
	sn := unpack(t, s, layer(t, file("f", "0")))
	for i := range 20 {
		a, err := s.Prepare(t.Context(), sn)
		must(t, err)
		must(t, rewrite(a.Root()+"/f"))
		if sn, err = a.Commit(); err != nil {
			t.Fatal(err)
		}
		if got := tarNames(t, readDiff(t, sn)); len(got) != 1 {
			t.Fatalf("change %d: the layer has %q", i, got)
		}
	}
}

// TestTiedFiles: the names of one file stay one file, whichever of them a step uses;
// one whose other name has gone is as it was.
func TestTiedFiles(t *testing.T) {
	needOwners(t)
	s := copyStore(t, t.TempDir())
	base := unpack(t, s, layer(t, file("a", "old"), hardlink("b", "a"), file("x", "old"), hardlink("y", "x"), hardlink("z", "x")))
	for name, c := range map[string]struct {
		do   func(root string) error
		want []string
	}{
		"write to one": {func(root string) error { return put(root+"/b", os.O_TRUNC, "new") }, []string{"a", "b -> a"}},
		"remove one":   {func(root string) error { return os.Remove(root + "/a") }, []string{".wh.a"}},
		"replace one": {func(root string) error {
			return errors.Join(os.WriteFile(root+"/n", []byte("n"), 0o600), os.Rename(root+"/n", root+"/a"))
		}, []string{"a"}},
		"remove one, change the other": {func(root string) error {
			return errors.Join(os.Remove(root+"/a"), rewrite(root+"/b"))
		}, []string{".wh.a", "b"}},
		"remove one, setcap the other": {func(root string) error {
			return errors.Join(os.Remove(root+"/a"), unix.Setxattr(root+"/b", "security.capability", []byte(capability), 0))
		}, []string{".wh.a", "b"}},
		"one more":   {func(root string) error { return os.Link(root+"/y", root+"/w") }, []string{"w", "x -> w", "y -> w", "z -> w"}},
		"rename one": {func(root string) error { return os.Rename(root+"/y", root+"/w") }, []string{"w", "x -> w", ".wh.y", "z -> w"}},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := s.Prepare(t.Context(), base)
			must(t, err, c.do(a.Root()))
			want := list(t, a.Root())
			sn, err := a.Commit()
			must(t, err)
			diff := readDiff(t, sn)
			wantNames(t, "layer", tarNames(t, diff), c.want...)
			fresh := copyStore(t, t.TempDir())
			again := unpack(t, fresh, layer(t, file("a", "old"), hardlink("b", "a"), file("x", "old"), hardlink("y", "x"), hardlink("z", "x")), layerOf(diff, diff))
			if !bytes.Contains(diff, []byte("capability")) || realRoot() {
				sameTree(t, "unpacked", withoutRootTime(viewed(t, fresh, again)), withoutRootTime(want))
			}
		})
	}
}

// TestMarkNames: in a store with file marks no step can make what looks like one.
func TestMarkNames(t *testing.T) {
	needMounts(t)
	s := copyStore(t, onOverlay(t))
	a, err := s.Prepare(t.Context(), nil)
	must(t, err)
	write(t, a.Root()+"/.wh.x", "")
	if _, err := a.Commit(); err == nil || !strings.Contains(err.Error(), ".wh.") {
		t.Errorf("commit: %v", err)
	}
	must(t, a.Discard())
}

func TestSnapshottersWork(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	for _, with := range []snapshot.Snapshotter{snapshot.Overlay, snapshot.Copy} {
		must(t, works(filepath.Join(dir, "new"), with))
	}
	on := onOverlay(t)
	must(t, works(on, snapshot.Copy))
	if err := works(on, snapshot.Overlay); err == nil || !strings.Contains(err.Error(), "an overlay itself") {
		t.Errorf("an overlay on an overlay: %v", err)
	}
	if err := works(dir, "btrfs"); err == nil || !strings.Contains(err.Error(), "btrfs") {
		t.Errorf("an unknown one: %v", err)
	}
}

// TestCopiesWithoutMounting runs the tests of copies with the capabilities of
// Docker's default container.
func TestCopiesWithoutMounting(t *testing.T) {
	if !realRoot() {
		t.Skip("wants to be root, to give capabilities up")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip(err)
	}
	const caps = "-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write"
	self, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), setpriv, "--bounding-set", caps, "--inh-caps", "-all", self,
		"-test.v", "-test.run=^(TestChainIsCopiedOnce|TestTiedFiles|TestQuickChange|TestManyCheckouts)$")
	cmd.Env = append(os.Environ(), modeVar+"=root")
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("--- SKIP")) || !bytes.Contains(out, []byte("--- PASS: TestTiedFiles")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestKilledCopies: the copies of a killed process go when the store is next opened.
func TestKilledCopies(t *testing.T) {
	needOwners(t)
	const dirVar = "BOB_SNAPSHOT_TEST_KILL"
	if dir := os.Getenv(dirVar); dir != "" {
		s := copyStore(t, dir)
		a, err := s.Prepare(t.Context(), nil)
		must(t, err)
		write(t, a.Root()+"/f", "")
		sn, err := a.Commit()
		must(t, err)
		_, err = s.View(t.Context(), sn)
		must(t, err)
		_, err = s.Prepare(t.Context(), sn)
		must(t, err, syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestKilledCopies$")
	cmd.Env = append(os.Environ(), dirVar+"="+dir)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("not killed: %v\n%s", err, out)
	}
	count := func() int {
		found, err := filepath.Glob(filepath.Join(dir, "ids/*/active/[0-9a-f]*"))
		must(t, err)
		return len(found)
	}
	if count() == 0 {
		t.Error("the killed process left nothing")
	}
	must(t, copyStore(t, dir).Close())
	if n := count(); n > 0 {
		t.Errorf("%d directories are left", n)
	}
}
