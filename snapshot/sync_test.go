package snapshot_test

import (
	"context"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot"
)

// TestSyncIdle leaves the work to the process that waits already.
func TestSyncIdle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := snapshot.Open(dir, snapshot.Options{Snapshotter: snapshot.Copy}) // uses the store until the end
	must(t, err)
	if snapshot.SyncAwaited(dir) {
		t.Error("a sync is awaited before one is asked for")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- snapshot.SyncIdle(ctx, dir) }()
	for !snapshot.SyncAwaited(dir) {
		time.Sleep(time.Millisecond)
	}
	must(t, snapshot.SyncIdle(t.Context(), dir)) // returns at once
	cancel()
	if err := <-ended; err == nil {
		t.Error("a wait that was ended has no error")
	}
	if snapshot.SyncAwaited(dir) {
		t.Error("a sync is awaited that was given up")
	}
	must(t, s.Close())
}

func TestSincePrune(t *testing.T) {
	t.Parallel()
	s, err := snapshot.Open(t.TempDir(), snapshot.Options{Snapshotter: snapshot.Copy})
	must(t, err)
	if since := s.SincePrune(); since < 100*365*24*time.Hour {
		t.Errorf("a new store was pruned %v ago", since)
	}
	_, err = s.Prune(t.Context(), snapshot.PruneOptions{Keep: 1 << 40})
	must(t, err)
	if since := s.SincePrune(); since > time.Hour {
		t.Errorf("a store that was just pruned was pruned %v ago", since)
	}
	must(t, s.Close())
}
