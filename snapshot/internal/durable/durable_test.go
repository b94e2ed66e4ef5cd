package durable_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/durable"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestSeal(t *testing.T) {
	t.Parallel()
	b := durable.Of(t.TempDir())
	for _, value := range []string{"", "value", "two\nlines", "bob1 \"\" 1 abc\n"} {
		sealed := b.Seal([]byte(value))
		if got, ok := b.Unseal(sealed); !ok || string(got) != value {
			t.Errorf("%q: got %q, %t", value, got, ok)
		}
		for i := range sealed {
			damaged := append([]byte(nil), sealed...)
			damaged[i] ^= 1
			if got, ok := b.Unseal(damaged); ok {
				t.Errorf("%q with another byte %d: got %q", value, i, got)
			}
			if got, ok := b.Unseal(sealed[:i]); ok && string(got) != value {
				t.Errorf("%q cut after %d bytes: got %q", value, i, got)
			}
		}
	}
}

// TestHolds: what another boot wrote is there if it wrote it before that was synced.
func TestHolds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := durable.Of(dir)
	if b.Running() == "" {
		t.Skip("boots can't be told apart here")
	}
	before := b.Now()
	must(t, durable.Sync(t.Context(), dir))
	after := b.Now()
	if !b.Holds(before) || !b.Holds(after) {
		t.Error("what this boot wrote doesn't hold")
	}
	// As if it were another boot: what Sync has noted is sealed by its own.
	const other = "0123"
	data, err := os.ReadFile(filepath.Join(dir, "synced", b.Running()))
	must(t, err, os.WriteFile(filepath.Join(dir, "synced", other), data, 0o600))
	if b.Holds(durable.Stamp{Boot: other, At: 0}) {
		t.Error("a note that belongs to another boot was believed")
	}
	if b.Holds(durable.Stamp{Boot: "unknown", At: 1}) || b.Holds(durable.Stamp{Boot: other, At: math.MaxInt64}) {
		t.Error("what wasn't synced holds")
	}
}

func TestForget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := durable.Of(dir)
	must(t, b.Forget()) // of nothing
	synced := filepath.Join(dir, "synced")
	must(t, os.Mkdir(synced, 0o700))
	const all, kept = 105, 100
	for i := range all {
		name := filepath.Join(synced, fmt.Sprint(i))
		at := time.Unix(int64(1000+i), 0)
		must(t, os.WriteFile(name, nil, 0o600), os.Chtimes(name, at, at))
	}
	must(t, b.Forget())
	for i := range all {
		_, err := os.Stat(filepath.Join(synced, fmt.Sprint(i)))
		if oldest := i < all-kept; os.IsNotExist(err) != oldest {
			t.Errorf("boot %d: %v", i, err)
		}
	}
}
