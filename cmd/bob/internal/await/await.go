// Package await waits for a file that another process makes.
package await

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// File returns when the file called name exists. When there is no such file
// it calls waiting at once and then each minute, with the time that has passed;
// after limit it gives up. Ending ctx ends it.
//
// The kernel tells of what comes into being (inotify). Network file systems and
// machines that are out of inotify instances say nothing, so it also looks by
// itself now and then.
func File(ctx context.Context, name string, limit time.Duration, waiting func(time.Duration)) error {
	const look = 5 * time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("%s did not appear within %s", name, limit))
	defer cancel()
	var changed <-chan fsnotify.Event
	var broken <-chan error
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		changed, broken = watcher.Events, watcher.Errors
	}
	start := time.Now()
	tick, minute := time.NewTicker(look), time.NewTicker(time.Minute)
	defer tick.Stop()
	defer minute.Stop()
	for said := false; ; {
		if watcher != nil {
			watchNearest(watcher, name)
		}
		// Looked at after the watch is set, so that nothing is missed between.
		_, err := os.Stat(name)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !said {
			waiting(0)
			said = true
		}
		select {
		case <-changed:
		case <-broken: //nolint:errcheck // events were lost, perhaps the one that matters
		case <-tick.C:
		case <-minute.C:
			waiting(time.Since(start))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watchNearest has the watcher tell of what changes in the nearest directory
// above name that exists, and in no other.
func watchNearest(watcher *fsnotify.Watcher, name string) {
	for { // until no nearer one has come into being since it was looked for
		dir, watched := nearestDir(name), watcher.WatchList()
		if slices.Equal(watched, []string{dir}) || watcher.Add(dir) != nil {
			return
		}
		for _, old := range watched {
			if old != dir {
				_ = watcher.Remove(old) // gone, if that fails
			}
		}
	}
}

// nearestDir returns the nearest directory above name that exists.
func nearestDir(name string) string {
	dir := filepath.Dir(name)
	for dir != filepath.Dir(dir) {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
