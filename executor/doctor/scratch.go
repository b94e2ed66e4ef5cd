package doctor

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// existing returns dir, or the closest directory above it that exists.
func existing(dir string) string {
	for {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// A scratch is a directory to try things in. It is locked (flock) as long as it is
// there: in a cache directory the next build removes what a killed process left.
type scratch struct {
	path string
	lock *os.File
}

// newScratch makes a directory in dir, of a name with that prefix and digits. The caller
// removes it.
func newScratch(dir, prefix string) (*scratch, error) {
	path, err := os.MkdirTemp(dir, prefix)
	if err != nil {
		return nil, err
	}
	lock, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	// Nobody else knows of it, and file systems that lock nothing keep no cache.
	_ = unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	return &scratch{path, lock}, nil
}

// remove removes the directory. The kernel makes directories in overlays that nobody may
// list.
func (s *scratch) remove() {
	_ = filepath.WalkDir(s.path, func(path string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a directory
		}
		return nil
	})
	_ = os.RemoveAll(s.path)
	_ = s.lock.Close()
}

const otherPlace = "choose another place by --cache-dir, or BOB_CACHE_DIR"

const otherDisk = "put the cache on a local disk or a tmpfs: --cache-dir, or BOB_CACHE_DIR; in Kubernetes, on a volume\n" +
	"  volumes:\n" +
	"  - {name: bob, emptyDir: {}}"
