package snapshot

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"golang.org/x/sys/unix"
)

const (
	lockName  = "lock"  // in a claim: locked while its owner lives
	guardName = ".lock" // beside claims: shared by makers, exclusive for sweep
)

// A claim is a directory that belongs to this process. It holds a locked file, by
// which other processes tell that the owner is alive.
type claim struct {
	path string
	lock *heldLock
}

// newClaim makes a claim below parent.
func newClaim(parent string) (*claim, error) {
	// sweep takes a directory without a locked file for garbage, so it must not
	// look between the making of the two.
	guard, err := openLock(filepath.Join(parent, guardName), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer guard.Close()
	c := &claim{path: filepath.Join(parent, randomID())}
	if err := os.Mkdir(c.path, 0o700); err != nil {
		return nil, err
	}
	c.lock, err = openLock(filepath.Join(c.path, lockName), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return nil, errors.Join(err, c.abandon(parent))
	}
	return c, nil
}

// become renames the claim to path, which ends it. The lock moves along and goes
// last, so that the directory is never without an owner under its old name.
func (c *claim) become(path string) error {
	if err := os.Rename(c.path, path); err != nil {
		return err
	}
	os.Remove(filepath.Join(path, lockName))
	return c.lock.Close()
}

// abandon renames the claim into the directory garbage and gives up the lock.
func (c *claim) abandon(garbage string) error {
	err := os.Rename(c.path, filepath.Join(garbage, filepath.Base(c.path)))
	if c.lock != nil {
		err = errors.Join(err, c.lock.Close())
	}
	return err
}

// drop removes the claim at once and gives up the lock.
func (c *claim) drop() error {
	return errors.Join(descent.RemovePath(c.path), c.lock.Close())
}

// sweep renames the claims of dead processes below parent into garbage.
func sweep(parent, garbage string) error {
	guard, err := openLock(filepath.Join(parent, guardName), unix.LOCK_EX|unix.LOCK_NB)
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
		dead, err := isDead(path)
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

// isDead reports whether nobody holds the lock of the claim path.
func isDead(path string) (bool, error) {
	f, err := os.Open(filepath.Join(path, lockName))
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
	lock, err := takeLock(f, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, lock.Close()
}

// randomID returns 128 random bits in hex.
func randomID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}
