package snapshot_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot"
)

// serving returns how many processes serve mounts of the store in dir.
func serving(t *testing.T, dir string) (n int) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	for _, l := range lines {
		b, err := os.ReadFile(l)
		if err == nil && bytes.HasPrefix(b, []byte("/")) && bytes.Contains(b, []byte(dir+"/ids/")) {
			n++
		}
	}
	return n
}

// TestFuseProcesses: no process of fuse-overlayfs outlives its mount or the process
// that has started it, however that ends.
func TestFuseProcesses(t *testing.T) {
	needMounts(t)
	const dirVar = "BOB_SNAPSHOT_TEST_FUSE"
	fuse := snapshot.Options{Snapshotter: snapshot.FuseOverlay}
	if dir := os.Getenv(dirVar); dir != "" {
		s := openStoreWith(t, dir, fuse)
		_, err := s.Prepare(t.Context(), nil)
		must(t, err)
		if serving(t, dir) != 1 {
			t.Fatal("there is no process")
		}
		must(t, syscall.Kill(os.Getpid(), syscall.SIGKILL))
		select {}
	}
	dir := t.TempDir()
	if err := works(dir, snapshot.FuseOverlay); err != nil {
		t.Skip(err)
	}
	s := openStoreWith(t, dir, fuse)
	a, err := s.Prepare(t.Context(), nil)
	must(t, err)
	f, err := os.Create(a.Root() + "/busy")
	must(t, err)
	defer f.Close()
	if n := serving(t, dir); n != 1 {
		t.Errorf("%d processes serve one mount", n)
	}
	must(t, a.Discard())
	if n := serving(t, dir); n != 0 {
		t.Errorf("%d processes are left after a mount that was in use", n)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestFuseProcesses$")
	cmd.Env = append(os.Environ(), dirVar+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != -1 {
		t.Fatalf("not killed: %v\n%s", err, out)
	}
	for serving(t, dir) > 0 {
		time.Sleep(time.Millisecond)
	}
}

// TestFuseLostName takes one of its names from a file, for which fuse-overlayfs copies it
// up under another.
func TestFuseLostName(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	if err := works(dir, snapshot.FuseOverlay); err != nil {
		t.Skip(err)
	}
	base := layer(t, file("a", "a"), hardlink("b", "a"), hardlink("c", "a"), hardlink("d", "a"))
	var diffs [][]byte
	for _, s := range []*snapshot.Store{openStore(t, t.TempDir()), openStoreWith(t, dir, snapshot.Options{Snapshotter: snapshot.FuseOverlay})} {
		a, err := s.Prepare(t.Context(), unpack(t, s, base))
		must(t, err)
		must(t, os.Remove(a.Root()+"/b"))
		must(t, os.Mkdir(a.Root()+"/b", 0o700))
		must(t, os.Chtimes(a.Root()+"/b", latest, latest))
		must(t, os.Chtimes(a.Root(), latest, latest))
		sn, err := a.Commit()
		must(t, err)
		diffs = append(diffs, diffUntil(t, sn))
	}
	if !bytes.Equal(diffs[0], diffs[1]) {
		t.Errorf("overlay:\n\t%s\nfuse-overlayfs:\n\t%s", entries(t, diffs[0]), entries(t, diffs[1]))
	}
}
