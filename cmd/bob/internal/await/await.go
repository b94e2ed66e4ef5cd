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

// File returns when the file called name exists. While it waits it calls waiting, at
// once and then each minute, with the time that has passed. It returns an error after
// limit, or when ctx ends.
//
// The kernel reports new files by inotify. Network file systems don't, nor do machines
// that are out of inotify instances, so File also looks now and then.
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
		// Look after setting the watch: a file made before it is not reported.
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

// watchNearest makes the watcher report changes in the nearest existing directory above
// name, and in no other.
func watchNearest(watcher *fsnotify.Watcher, name string) {
	for { // until no nearer directory was made in the meantime
		dir, watched := nearestDir(name), watcher.WatchList()
		if slices.Equal(watched, []string{dir}) || watcher.Add(dir) != nil {
			return
		}
		for _, old := range watched {
			if old != dir {
				_ = watcher.Remove(old) // it fails if the directory is gone
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
