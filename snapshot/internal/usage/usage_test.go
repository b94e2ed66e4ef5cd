package usage_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/usage"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// begin returns a use of the store in dir, which ends with the test.
func begin(t *testing.T, dir string) *usage.Usage {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(dir, "tmp"), 0o700))
	u, err := usage.Begin(dir)
	must(t, err)
	t.Cleanup(func() { _ = u.Drop() })
	return u
}

// TestJustBefore: what one use has marked was used before the next one begins.
func TestJustBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for range 50 {
		u := begin(t, dir)
		must(t, u.Mark(file), u.Drop())
		next := begin(t, dir)
		fi, err := os.Stat(file)
		must(t, err)
		if !fi.ModTime().Before(next.Opened()) {
			t.Fatalf("marked at %v, opened at %v", fi.ModTime(), next.Opened())
		}
		must(t, next.Drop())
	}
}

func TestOldest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := begin(t, dir)
	if oldest, alone, err := first.Oldest(); err != nil || !alone || !oldest.Equal(first.Opened()) {
		t.Errorf("alone: got %v, %t, %v", oldest, alone, err)
	}
	second := begin(t, dir)
	for _, u := range []*usage.Usage{first, second} {
		if oldest, alone, err := u.Oldest(); err != nil || alone || !oldest.Equal(first.Opened()) {
			t.Errorf("of two: got %v, %t, %v", oldest, alone, err)
		}
	}
	must(t, first.Drop())
	if oldest, alone, err := second.Oldest(); err != nil || !alone || !oldest.Equal(second.Opened()) {
		t.Errorf("alone again: got %v, %t, %v", oldest, alone, err)
	}
}

func TestMark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	u := begin(t, dir)
	file := filepath.Join(dir, "deep", "file")
	if err := u.Mark(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
	must(t, u.WriteFile(file, []byte("old")), u.WriteFile(file, []byte("new")))
	long := time.Unix(1000, 0)
	must(t, os.Chtimes(file, long, long), u.Mark(file))
	fi, err := os.Stat(file)
	must(t, err)
	if fi.ModTime().Before(u.Opened()) {
		t.Errorf("marked at %v, opened at %v", fi.ModTime(), u.Opened())
	}
	if data, err := os.ReadFile(file); string(data) != "new" {
		t.Errorf("got %q, %v", data, err)
	}
	if left, err := filepath.Glob(u.TempDir() + "/record-*"); len(left) > 0 || err != nil {
		t.Errorf("left %q, %v", left, err)
	}
}
