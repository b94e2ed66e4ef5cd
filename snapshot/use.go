package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/locks"
	"golang.org/x/sys/unix"
)

// What a store keeps carries the time of its last use: the modification time of a
// blob, of a record, of a snapshot's meta.json and of a cache mount's lock. A
// process that has marked something is sure of it until it closes the store,
// because Prune spares everything that was used since the oldest living process
// opened it. Marking and removing exclude each other by a lock, so that nothing
// goes between being found and being marked.

// useName is the file whose flock(2) is shared by those who mark something as
// used, and exclusive for Prune while it removes.
const useName = ".use"

// lockUse takes the lock of useName as how says.
func (s *Store) lockUse(how int) (*locks.Held, error) {
	return locks.Open(s.path(useName), how)
}

// use marks the file at path as used now. The error of one that isn't there is
// fs.ErrNotExist.
func (s *Store) use(path string) error {
	lock, err := s.lockUse(unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer lock.Close()
	return s.touch(path)
}

// touch sets the time of last use of the file at path. It is never earlier than the
// opening of the store, however the clock was set back since.
func (s *Store) touch(path string) error {
	now := time.Now()
	if now.Before(s.opened) {
		now = s.opened
	}
	ts, err := unix.TimeToTimespec(now)
	if err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

// oldestUser returns when the oldest of the living processes opened the store,
// this one included, and whether this one is alone.
func (s *Store) oldestUser() (oldest time.Time, alone bool, err error) {
	oldest, alone = s.opened, true
	entries, err := os.ReadDir(s.path("tmp"))
	if err != nil {
		return oldest, false, err
	}
	for _, e := range entries {
		path := filepath.Join(s.path("tmp"), e.Name())
		if strings.HasPrefix(e.Name(), ".") || path == s.tmp.Path {
			continue
		}
		opened, err := modTime(filepath.Join(path, locks.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been closed
		}
		if err != nil {
			return oldest, false, err
		}
		dead, err := locks.IsDead(path)
		if err != nil {
			return oldest, false, err
		}
		if dead {
			continue
		}
		alone = false
		if opened.Before(oldest) {
			oldest = opened
		}
	}
	return oldest, alone, nil
}
