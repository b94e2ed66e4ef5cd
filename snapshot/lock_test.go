package snapshot_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// TestLocksGoWithClose: who closes something gives its locks up, also while a child
// process that was forked meanwhile has the same open files.
func TestLocksGoWithClose(t *testing.T) {
	t.Parallel()
	needMounts(t)
	dir := t.TempDir()
	s := openStore(t, dir)
	mount := digest.FromString("mount")
	c, err := s.CacheMount(t.Context(), mount, snapshot.Locked, nil, func(path string) error { return os.Mkdir(path, 0o755) })
	must(t, err)
	release, err := s.Lock(t.Context(), mount, nil)
	must(t, err)
	a, err := s.Prepare(t.Context(), nil)
	must(t, err)
	inheritLocks(t, dir, 4) // of the cache mount, of the name, of the snapshot, of the open store
	release()
	must(t, a.Discard(), c.Close(), s.Close())

	s = openStore(t, dir)
	release, err = s.Lock(t.Context(), mount, func(pid int) { t.Errorf("waits for process %d", pid) })
	must(t, err)
	release()
	items, err := s.Items(t.Context())
	must(t, err)
	for _, it := range items {
		if it.InUse {
			t.Errorf("in use is %v", it)
		}
	}
	if removed, err := s.Prune(t.Context(), snapshot.PruneOptions{}); err != nil || len(removed) != len(items) || len(items) == 0 {
		t.Errorf("removed %v of %v, %v", removed, items, err)
	}
}

// inheritLocks duplicates the descriptors of the locked files in dir, as a fork does, until
// the test ends. There are at least least of them.
func inheritLocks(t *testing.T, dir string, least int) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	found := 0
	for _, e := range open {
		path, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.HasPrefix(path, dir+"/") {
			continue
		}
		fi, err := os.Stat(path)
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		must(t, err)
		fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		must(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		found++
	}
	if found < least {
		t.Errorf("found %d locked files, want %d", found, least)
	}
}
