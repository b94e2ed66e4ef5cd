package locks

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"golang.org/x/sys/unix"
)

// The files that are locked.
const (
	Name      = "lock"  // in a claim: locked while its owner lives
	GuardName = ".lock" // beside claims: shared by makers, exclusive for Sweep
)

// A Claim is a directory that belongs to this process. It holds a locked file, by
// which other processes tell that the owner is alive.
type Claim struct {
	Path string // of the directory
	lock *Held
}

// NewClaim makes a claim below parent.
func NewClaim(parent string) (*Claim, error) {
	// Sweep takes a directory without a locked file for garbage, so it must not
	// look between the making of the two.
	guard, err := Open(filepath.Join(parent, GuardName), unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer guard.Close()
	c := &Claim{Path: filepath.Join(parent, randomID())}
	if err := os.Mkdir(c.Path, 0o700); err != nil {
		return nil, err
	}
	// IsDead may hold the lock for a moment, which is waited for; nobody else takes it.
	c.lock, err = Open(filepath.Join(c.Path, Name), unix.LOCK_EX)
	if err != nil {
		return nil, errors.Join(err, descent.RemovePath(c.Path))
	}
	return c, nil
}

// Become renames the claim to path, which ends it. The lock moves along and goes
// last, so that the directory is never without an owner under its old name.
func (c *Claim) Become(path string) error {
	if err := os.Rename(c.Path, path); err != nil {
		return err
	}
	os.Remove(filepath.Join(path, Name))
	return c.lock.Close()
}

// HandOver renames the claim to path, which ends it, and returns its lock, taken anew as
// how says. For a moment nobody holds it. After an error the caller abandons the claim.
func (c *Claim) HandOver(path string, how int) (*Held, error) {
	if err := os.Rename(c.Path, path); err != nil {
		return nil, err
	}
	return c.lock, flock(c.lock.File, how)
}

// Release gives up the lock and leaves the directory to whoever sweeps.
func (c *Claim) Release() error { return c.lock.Close() }

// Made returns when the claim was made.
func (c *Claim) Made() (time.Time, error) {
	fi, err := c.lock.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return fi.ModTime(), nil
}

// Abandon renames the claim into the directory garbage and gives up the lock.
func (c *Claim) Abandon(garbage string) error {
	return errors.Join(os.Rename(c.Path, filepath.Join(garbage, filepath.Base(c.Path))), c.lock.Close())
}

// Drop removes the claim at once and gives up the lock.
func (c *Claim) Drop() error {
	return errors.Join(descent.RemovePath(c.Path), c.lock.Close())
}

// randomID returns 128 random bits in hex.
func randomID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}
