// Package usage tells the processes that share a store what the others use.
//
// What a store keeps carries the time of its last use, which is the modification time of
// a file. A process that has marked something is sure of it until it closes the store,
// because pruning spares everything that was used since the oldest living process opened
// it. Marking and removing exclude each other by a lock, so that nothing goes between
// being found and being marked.
package usage

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

// lockName is the file whose flock(2) is shared by those who mark something as used, and
// exclusive for those who remove.
const lockName = ".use"

// Usage is one process's use of a store. Its methods may be called concurrently.
type Usage struct {
	lock   string // the path of lockName
	claims string // the directory of the claims of all processes
	claim  *locks.Claim
	opened time.Time // the modification time of the claim's lock
}

// Begin says that this process uses the store in dir from now on, by a claim in its
// directory tmp, which is there. The caller ends it by End or Drop.
func Begin(dir string) (*Usage, error) {
	u := &Usage{lock: filepath.Join(dir, lockName), claims: filepath.Join(dir, "tmp")}
	var err error
	if u.claim, err = locks.NewClaim(u.claims); err != nil {
		return nil, err
	}
	// The kernel's clock for files lags behind the one that Touch takes: without this,
	// what was used just before would look as if it were used by this process.
	err = setTime(filepath.Join(u.claim.Path, locks.Name), time.Now())
	if err == nil {
		u.opened, err = u.claim.Made()
	}
	if err != nil {
		return nil, errors.Join(err, u.claim.Drop())
	}
	return u, nil
}

// End ends it. What is left of its files goes into the directory garbage.
func (u *Usage) End(garbage string) error { return u.claim.Abandon(garbage) }

// Drop ends it and removes its files at once.
func (u *Usage) Drop() error { return u.claim.Drop() }

// TempDir returns the directory of this process for files that aren't whole yet.
func (u *Usage) TempDir() string { return u.claim.Path }

// Opened returns when the use began.
func (u *Usage) Opened() time.Time { return u.opened }

// Exclude keeps every process from marking anything until the lock is closed.
func (u *Usage) Exclude() (*locks.Held, error) { return locks.Open(u.lock, unix.LOCK_EX) }

// Mark marks the file at path as used now. The error of one that isn't there is
// fs.ErrNotExist.
func (u *Usage) Mark(path string) error {
	lock, err := locks.Open(u.lock, unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer lock.Close()
	return u.Touch(path)
}

// Touch is [Usage.Mark] for a file that nobody else may remove. The time that it sets is
// never earlier than Opened, also if the clock was set back since.
func (u *Usage) Touch(path string) error {
	now := time.Now()
	if now.Before(u.opened) {
		now = u.opened
	}
	return setTime(path, now)
}

// setTime sets the times of the file at path.
func setTime(path string, at time.Time) error {
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimensat", Path: path, Err: err}
	}
	return nil
}

// Oldest returns when the oldest of the living processes opened the store, this one
// included, and whether this one is alone.
func (u *Usage) Oldest() (oldest time.Time, alone bool, err error) {
	oldest, alone = u.opened, true
	err = living(u.claims, func(path string, opened time.Time) {
		if path == u.claim.Path {
			return
		}
		alone = false
		if opened.Before(oldest) {
			oldest = opened
		}
	})
	return oldest, alone && err == nil, err
}

// InUse reports whether a living process uses the store in dir.
func InUse(dir string) (used bool, err error) {
	err = living(filepath.Join(dir, "tmp"), func(string, time.Time) { used = true })
	return used, err
}

// living calls each with every claim of a living process, and when it was made.
func living(claims string, each func(path string, made time.Time)) error {
	entries, err := os.ReadDir(claims)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(claims, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		lock, err := os.Lstat(filepath.Join(path, locks.Name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been closed
		}
		if err != nil {
			return err
		}
		dead, err := locks.IsDead(path)
		if err != nil {
			return err
		}
		if !dead {
			each(path, lock.ModTime())
		}
	}
	return nil
}

// WriteFile writes value to a temporary file, marks it as used and renames it to path,
// whose directory it makes. Readers in any process see the old file or the new one.
func (u *Usage) WriteFile(path string, value []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(u.claim.Path, "record-*")
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = u.Touch(f.Name())
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
