package snapshot_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// TestCacheMountSharing opens one cache in two stores of the same directory, as
// two processes would.
func TestCacheMountSharing(t *testing.T) {
	dir := t.TempDir()
	var stores [2]*snapshot.Store
	for i := range stores {
		s, err := snapshot.Open(dir, snapshot.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		stores[i] = s
	}
	fill := func(path string) error { return os.Mkdir(path, 0o755) }
	open := func(ctx context.Context, s *snapshot.Store, name string, sharing snapshot.Sharing, waiting func()) (*snapshot.CacheMount, error) {
		return s.CacheMount(ctx, digest.FromString(name), sharing, waiting, fill)
	}
	for _, test := range []struct {
		name          string
		first, second snapshot.Sharing
		same, waits   bool
	}{
		{"shared", snapshot.Shared, snapshot.Shared, true, false},
		{"private", snapshot.Private, snapshot.Private, false, false},
		{"locked", snapshot.Locked, snapshot.Locked, true, true},
		{"locked behind shared", snapshot.Shared, snapshot.Locked, true, true},
		{"shared beside locked", snapshot.Locked, snapshot.Shared, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := open(t.Context(), stores[0], test.name, test.first, nil)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			waited := false
			b, err := open(ctx, stores[1], test.name, test.second, func() { waited = true; cancel() })
			cancel()
			if test.waits {
				if !waited || !errors.Is(err, context.Canceled) {
					t.Fatalf("waited %t, %v", waited, err)
				}
				b, err = open(t.Context(), stores[1], test.name, test.second, func() { _ = a.Close() })
			}
			if err != nil {
				t.Fatal(err)
			}
			if same := a.Root() == b.Root(); same != test.same {
				t.Errorf("%s and %s", a.Root(), b.Root())
			}
			if err := errors.Join(a.Close(), a.Close(), b.Close()); err != nil {
				t.Error(err)
			}
			again, err := snapshot.Open(dir, snapshot.Options{}) // sweeps
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(a.Root()); err != nil {
				t.Error(err)
			}
		})
	}
}
