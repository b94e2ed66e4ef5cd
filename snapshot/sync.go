package snapshot

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/durable"
	"github.com/bobbuild/bob/snapshot/internal/locks"
	"github.com/bobbuild/bob/snapshot/internal/usage"
)

// Sync waits until all that the store in dir held when it was called is on the disk,
// with all else on that file system, and remembers that. Processes may use the store
// meanwhile. Of several calls at the same time one does the work for those that wait.
func Sync(ctx context.Context, dir string) error {
	if err := durable.Sync(ctx, dir); err != nil {
		return fmt.Errorf("sync store %s: %w", dir, err)
	}
	return nil
}

// A file system makes whoever writes to it wait while it is synced. So SyncIdle lets
// idlePause pass first, and again while the store is used, idlePauses times at most.
const (
	idlePause  = 5 * time.Second
	idlePauses = 12
)

// SyncIdle is [Sync] at a moment in which no process uses the store, if there is one
// within a minute. It leaves the work to another call that waits already, in whatever
// process, and then returns at once.
func SyncIdle(ctx context.Context, dir string) error {
	unlock, err := locks.Try(idlePath(dir))
	if unlock == nil {
		return err
	}
	err = awaitIdle(ctx, dir)
	unlock() // who comes from now on may have written what is not synced
	if err != nil {
		return fmt.Errorf("sync store %s: %w", dir, err)
	}
	return Sync(ctx, dir)
}

// SyncAwaited reports whether a call of [SyncIdle] waits, which will sync all that the
// store in dir holds now.
func SyncAwaited(dir string) bool {
	unlock, err := locks.Try(idlePath(dir))
	if unlock != nil {
		unlock()
	}
	return unlock == nil && err == nil
}

// idlePath is the file that a waiting SyncIdle locks.
func idlePath(dir string) string { return filepath.Join(dir, "tmp", ".sync") }

func awaitIdle(ctx context.Context, dir string) error {
	for range idlePauses {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(idlePause):
		}
		if used, err := usage.InUse(dir); err != nil || !used {
			return err
		}
	}
	return nil
}
