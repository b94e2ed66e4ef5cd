package snapshot_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot"
)

// TestRestored has what was changed and put back be no change, and a true change of
// the same files be one.
func TestRestored(t *testing.T) {
	t.Parallel()
	s := openStoreWith(t, t.TempDir(), snapshot.Options{Snapshotter: snapshot.Copy})
	base, err := s.Prepare(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(base.Root(), "etc")
	err = errors.Join(os.Mkdir(etc, 0o755), os.WriteFile(etc+"/hosts", []byte("a"), 0o644), os.WriteFile(etc+"/passwd", []byte("a"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	below, err := base.Commit()
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.Prepare(t.Context(), below)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hosts", "passwd"} {
		path := filepath.Join(a.Root(), "etc", name)
		if err := errors.Join(os.Rename(path, path+"2"), os.Rename(path+"2", path)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(a.Root(), "etc/passwd"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Restored([]string{".", "etc", "etc/hosts", "etc/passwd", "etc/missing/file"}); err != nil {
		t.Fatal(err)
	}
	sn, err := a.Commit()
	if err != nil {
		t.Fatal(err)
	}
	got := entries(t, diffUntil(t, sn))
	if strings.Contains(got, "hosts") || !strings.Contains(got, "passwd") {
		t.Errorf("the layer has\n%s", got)
	}
}
