package trash_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/snapshot/internal/locks"
	"github.com/bobbuild/bob/snapshot/internal/trash"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestBin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"bin", "kept", "thrown/deep", "claims", "late"} {
		must(t, os.MkdirAll(filepath.Join(dir, name), 0o700))
	}
	b := trash.In(filepath.Join(dir, "bin"))
	must(t, b.Throw(filepath.Join(dir, "thrown")))
	c, err := locks.NewClaim(filepath.Join(dir, "claims"))
	must(t, err, os.WriteFile(c.Path+"/file", nil, 0o600), b.Discard(c))
	if err := b.Throw(filepath.Join(dir, "missing")); !os.IsNotExist(err) {
		t.Errorf("of nothing: %v", err)
	}
	b.Close()
	left := func(name string) int {
		t.Helper()
		entries, err := os.ReadDir(filepath.Join(dir, name))
		must(t, err)
		return len(entries)
	}
	if left("bin") > 0 || left("claims") > 1 { // the guard of claims stays
		t.Errorf("left %d and %d", left("bin"), left("claims"))
	}
	must(t, b.Throw(filepath.Join(dir, "late")))
	b.Collect() // is closed
	if left("bin") != 1 {
		t.Error("removed something after Close")
	}
	if _, err := os.Stat(filepath.Join(dir, "kept")); err != nil {
		t.Error(err)
	}
}
