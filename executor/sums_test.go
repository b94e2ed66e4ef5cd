package executor_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor"
)

// TestSameSizeAndTime changes a file in a way that only its bytes and the time of
// the change itself tell, and then leaves it alone until its sum is remembered.
func TestSameSizeAndTime(t *testing.T) {
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	write := func(content string) {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	build := func() string {
		t.Helper()
		k.mustBuild("FROM HOST/base\nCOPY f /\n", executor.Options{Context: dir, Tags: []string{k.host + "/app:1"}})
		_, files := k.pull(k.host + "/app:1")
		return files["/f"]
	}
	write("one")
	old := time.Now().Add(-time.Hour)
	for round, content := range []string{"one", "one", "two", "two"} {
		write(content)
		if err := os.Chtimes(file, old, old); err != nil { // neither size nor time tell
			t.Fatal(err)
		}
		if got := build(); got != content {
			t.Errorf("round %d: the image has %q, the context %q", round, got, content)
		}
		k.reopen()
	}
	records := filepath.Join(k.store, "records", "sums-*", "*", "*")
	for len(glob(t, records)) == 0 { // until the file is old enough
		if got := build(); got != "two" {
			t.Fatalf("the image has %q", got)
		}
		k.reopen()
	}
	if got := build(); got != "two" {
		t.Errorf("with what is remembered the image has %q", got)
	}
	write("six")
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	if got := build(); got != "six" {
		t.Errorf("after all that the image has %q", got)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}
