package snapshot_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// TestPreparedByOthers offers stores places that another user has prepared.
func TestPreparedByOthers(t *testing.T) {
	needOwners(t)
	const other = 4711
	give := func(t *testing.T, path string) { t.Helper(); must(t, os.Lchown(path, other, other)) }
	for name, tt := range map[string]struct {
		prepare func(t *testing.T, shared string) // makes shared/cache
		refused string                            // by CheckPlace or Open; "" if it is fine
	}{
		"nothing":      {func(*testing.T, string) {}, ""},
		"an empty one": {func(t *testing.T, d string) { must(t, os.Mkdir(d+"/cache", 0o777)); give(t, d+"/cache") }, "belongs to user 4711, who may have prepared it"},
		"a link to one's own": {func(t *testing.T, d string) {
			must(t, os.Symlink(t.TempDir(), d+"/cache"))
			give(t, d+"/cache")
		}, "belongs to user 4711"},
		"an own link to another's": {func(t *testing.T, d string) {
			must(t, os.Mkdir(d+"/theirs", 0o777), os.Symlink("theirs", d+"/cache"))
			give(t, d+"/theirs")
		}, "belongs to user 4711"},
		"below another's": {func(t *testing.T, d string) {
			must(t, os.Mkdir(d+"/cache", 0o777), os.Rename(d+"/cache", d+"/theirs"), os.Mkdir(d+"/theirs/sub", 0o777), os.Symlink("theirs/sub", d+"/cache"))
			give(t, d+"/cache")
		}, "belongs to user 4711"},
		"links in it": {func(t *testing.T, d string) {
			must(t, os.Mkdir(d+"/cache", 0o777), os.Mkdir(d+"/elsewhere", 0o777), os.Symlink("../elsewhere", d+"/cache/blobs"))
		}, "is a link"},
		"parts of another's": {func(t *testing.T, d string) {
			must(t, os.MkdirAll(d+"/cache/records", 0o777))
			give(t, d+"/cache/records")
		}, "belongs to user 4711, not to"},
		"one that all may write to": {func(t *testing.T, d string) {
			must(t, os.Mkdir(d+"/cache", 0o777), os.Chmod(d+"/cache", 0o777))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			shared := t.TempDir()
			must(t, os.Chmod(shared, os.ModeSticky|0o777))
			tt.prepare(t, shared)
			cache := filepath.Join(shared, "cache")
			err := snapshot.CheckPlace(cache)
			if err == nil {
				var s *snapshot.Store
				if s, err = snapshot.Open(cache, snapshot.Options{}); err == nil {
					must(t, s.Close())
				}
			}
			switch {
			case tt.refused == "":
				must(t, err)
			case err == nil || !strings.Contains(err.Error(), tt.refused) || !strings.Contains(err.Error(), "--cache-dir"):
				t.Errorf("%v, want that it %s", err, tt.refused)
			}
			if left, _ := os.ReadDir(shared + "/elsewhere"); len(left) > 0 {
				t.Errorf("wrote %v through a link", left)
			}
		})
	}
	// What isn't where anyone makes files was put there by who may.
	volume := t.TempDir()
	must(t, os.Mkdir(volume+"/cache", 0o755))
	give(t, volume+"/cache")
	must(t, snapshot.CheckPlace(volume+"/cache"))
}

// TestNothingStays kills a process in each of the places that it makes before it has
// opened the store, and in it, and looks what prune leaves.
func TestNothingStays(t *testing.T) {
	dir := t.TempDir()
	mount := func(s *snapshot.Store, key string) {
		c, err := s.CacheMount(t.Context(), digest.FromString(key), snapshot.Shared, nil, func(path string) error { return os.Mkdir(path, 0o755) })
		must(t, err, c.Close())
	}
	s, err := snapshot.Open(dir, snapshot.Options{})
	must(t, err)
	mount(s, "first")
	_, err = s.Prune(t.Context(), snapshot.PruneOptions{})
	must(t, err, s.Close())
	prune := func() {
		s, err := snapshot.Open(dir, snapshot.Options{})
		must(t, err)
		_, err = s.Prune(t.Context(), snapshot.PruneOptions{})
		must(t, err, s.Close())
	}
	prune()
	before := treeIn(t, dir)
	s, err = snapshot.Open(dir, snapshot.Options{})
	must(t, err)
	mount(s, "second")
	must(t, s.Close())
	ids, err := filepath.Glob(dir + "/ids/*")
	must(t, err)
	old := time.Now().Add(-time.Hour)
	for _, name := range []string{dir + "/.try-123", dir + "/.bob-doctor-45", dir + "/ids/.probe-6", dir + "/tmp/0123", ids[0] + "/active/4567"} {
		must(t, os.MkdirAll(name+"/work/work", 0), os.Chtimes(name, old, old))
	}
	must(t, os.WriteFile(ids[0]+"/locks/"+strings.Repeat("a", 64), nil, 0o600))
	must(t, os.MkdirAll(dir+"/synced", 0o700))
	for boot := range 102 { // two more than are remembered
		must(t, os.WriteFile(fmt.Sprintf("%s/synced/%d", dir, boot), nil, 0o600), os.Chtimes(fmt.Sprintf("%s/synced/%d", dir, boot), old, old.Add(time.Duration(boot)*time.Second)))
	}
	alive, err := os.Open(dir + "/.try-123")
	must(t, err, unix.Flock(int(alive.Fd()), unix.LOCK_SH))
	young := dir + "/.try-7" // not locked yet
	must(t, os.Mkdir(young, 0o700))
	prune()
	for _, name := range []string{alive.Name(), young} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("a living process has lost its directory: %v", err)
		}
	}
	must(t, alive.Close(), os.Chtimes(young, old, old))
	prune()
	for _, boot := range []string{"0", "1", "2", "101"} {
		if _, err := os.Stat(dir + "/synced/" + boot); (err == nil) != (len(boot) > 1 || boot == "2") {
			t.Errorf("boot %s: %v", boot, err)
		}
	}
	must(t, os.RemoveAll(dir+"/synced"))
	if after := treeIn(t, dir); after != before {
		t.Errorf("after prune the store holds\n%s\nwant\n%s", after, before)
	}
}

// tree lists all files below dir.
func treeIn(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "find", dir, "!", "-name", "lock").Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("%v: %s", err, exit.Stderr)
	}
	must(t, err)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestReadOnlyPlace opens stores where nothing can be written: what to do is the same
// whether there was one before.
func TestReadOnlyPlace(t *testing.T) {
	needMounts(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	s, err := snapshot.Open(dir+"/warm", snapshot.Options{})
	must(t, err, s.Close(), os.Mkdir(dir+"/cold", 0o700), unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
	for _, name := range []string{"warm", "cold", "missing"} {
		_, err := snapshot.Open(dir+"/"+name, snapshot.Options{})
		if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "choose another directory by --cache-dir") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
