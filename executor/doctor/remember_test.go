package doctor

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRememberedOverlay tries overlays again and again, in a mount namespace of its own.
func TestRememberedOverlay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can mount without entering namespaces")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skip(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	known, err := remembered(dir)
	if err != nil {
		t.Fatal(err)
	}
	if mountsAgain(known) {
		t.Error("something is remembered of a new directory")
	}
	if found := TryOverlay(dir); found != nil {
		t.Skip(found)
	}
	if !mountsAgain(known) {
		t.Error("nothing is remembered")
	}
	for _, damage := range []func() error{
		func() error { return os.Remove(filepath.Join(known, "second")) },
		func() error { return os.RemoveAll(filepath.Join(dir, rememberedName)) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if mountsAgain(known) {
			t.Error("what is damaged is believed")
		}
		if found := TryOverlay(dir); found != nil || !mountsAgain(known) {
			t.Errorf("after damage: %v", found)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left in the directory: %v, %v", entries, err)
	}
}
