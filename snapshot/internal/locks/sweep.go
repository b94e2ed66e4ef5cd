package locks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/containers/storage/pkg/regexp"
	"golang.org/x/sys/unix"
)

// Sweep renames the claims of dead processes below parent into garbage.
func Sweep(parent, garbage string) error {
	guard, err := Open(filepath.Join(parent, GuardName), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil // another one sweeps or makes a claim: the next Open is soon enough
	}
	if err != nil {
		return err
	}
	defer guard.Close()
	entries, err := os.ReadDir(parent)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(parent, e.Name())
		dead, err := IsDead(path)
		if err != nil {
			return err
		}
		if !dead {
			continue
		}
		if err := os.Rename(path, filepath.Join(garbage, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// IsDead reports whether nobody holds the lock of the claim path.
func IsDead(path string) (bool, error) {
	f, err := os.Open(filepath.Join(path, Name))
	if errors.Is(err, fs.ErrNotExist) {
		// Either its maker died before the lock was there, or it has just been
		// renamed away.
		_, err := os.Lstat(path)
		return err == nil, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return false, nil // another user's, who sees to it
	}
	if err != nil {
		return false, fmt.Errorf("look at the owner of %s: %w", path, err)
	}
	lock, err := Take(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, lock.Close()
}

// scratchName matches directories that processes make to try things in, before they
// open the store. They hold a lock (flock) on them.
var scratchName = regexp.Delayed(`^\.(try|bob-doctor|probe)-[0-9]+$`)

// scratchAge is how old a scratch directory without a lock must be to be garbage: one
// that was made just now isn't locked yet.
const scratchAge = time.Minute

// SweepScratch renames the scratch directories of dead processes in dir into garbage.
func SweepScratch(dir, garbage string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !scratchName.MatchString(e.Name()) || !e.IsDir() {
			continue
		}
		if err := sweepOne(dir, e.Name(), garbage); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return nil
}

func sweepOne(dir, name, garbage string) error {
	fd, err := descent.Open(unix.AT_FDCWD, filepath.Join(dir, name), unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	fi, err := f.Stat()
	if err != nil || time.Since(fi.ModTime()) < scratchAge {
		return errors.Join(err, f.Close())
	}
	lock, err := Take(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	return os.Rename(filepath.Join(dir, name), filepath.Join(garbage, randomID()))
}
