// Package cachemounts keeps directories that outlive builds and are no part of any image:
// RUN --mount=type=cache.
package cachemounts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/durable"
	"github.com/bobbuild/bob/snapshot/internal/locks"
	"github.com/bobbuild/bob/snapshot/internal/pruning"
	"github.com/bobbuild/bob/snapshot/internal/trash"
	"github.com/bobbuild/bob/snapshot/internal/usage"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Sharing says who may use a cache mount at the same time.
type Sharing int

// The kinds of sharing, as RUN --mount=type=cache,sharing= has them.
const (
	Shared  Sharing = iota // any number of users together
	Private                // one user; whoever finds it in use gets another directory
	Locked                 // one user; whoever finds it in use waits
)

// A CacheMount is a directory that outlives builds and is no part of any image,
// held by one user. Its methods may be called concurrently.
type CacheMount struct {
	root string
	lock *locks.Held
}

// Root returns the path of what is mounted: what fill made.
func (c *CacheMount) Root() string { return c.root }

// Close lets others have the directory. A second call does nothing.
func (c *CacheMount) Close() error {
	if err := c.lock.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close cache mount: %w", err)
	}
	return nil
}

// Caches are the cache mounts of one ID mapping of a store. Their methods may be called
// concurrently, also in several processes.
type Caches struct {
	dir    string // KEY/NUMBER below it are the instances
	active string // where an instance is filled
	usage  *usage.Usage
	boots  *durable.Boots
	bin    *trash.Bin
}

// Of returns the cache mounts in the directory dir. They are filled in the directory
// active.
func Of(dir, active string, u *usage.Usage, b *durable.Boots, bin *trash.Bin) *Caches {
	return &Caches{dir: dir, active: active, usage: u, boots: b, bin: bin}
}

// List calls add for each instance. It measures those that it has measured before anew if
// exact is set.
func (cs *Caches) List(ctx context.Context, exact bool, add func(pruning.Entry)) error {
	return pruning.EachFile(cs.dir, func(key fs.DirEntry) error {
		dir := filepath.Join(cs.dir, key.Name())
		return pruning.EachFile(dir, func(n fs.DirEntry) error {
			path := filepath.Join(dir, n.Name())
			e, err := pruning.Directory(pruning.Item{Kind: pruning.CacheMount, ID: key.Name() + "/" + n.Name()}, path, locks.Name)
			if err != nil {
				return err
			}
			e.Lost = !cs.intact(path)
			lock, err := lockInstance(path, Locked)
			if err != nil {
				return err
			}
			if e.InUse = lock == nil; lock != nil {
				defer lock.Close()
			}
			if e.Size, err = pruning.TreeSize(ctx, cs.usage, path, exact); err != nil {
				return err
			}
			add(e)
			return nil
		})
	})
}

// Remove removes the instance e unless somebody uses it.
func (cs *Caches) Remove(e pruning.Entry) (gone bool, err error) {
	guard, err := locks.Try(filepath.Join(filepath.Dir(e.Path), locks.GuardName))
	if guard == nil || err != nil {
		return false, err // it is being opened
	}
	defer guard()
	lock, err := lockInstance(e.Path, Locked)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // another process was faster
	}
	if lock == nil || err != nil {
		return false, err
	}
	defer lock.Close()
	return true, cs.bin.Throw(e.Path)
}

// Tidy removes the directories of caches without an instance.
func (cs *Caches) Tidy() error {
	return pruning.EachFile(cs.dir, func(e fs.DirEntry) error {
		err := os.Remove(filepath.Join(cs.dir, e.Name()))
		if errors.Is(err, unix.ENOTEMPTY) {
			return nil
		}
		return err
	})
}

// Open returns a directory of the cache that key names, for as long as
// the caller doesn't close it. All builds and processes of the store with the
// same ID mapping share it; nothing but the user removes it. If there is none
// that may be used, fill makes the file or directory at the path it is given,
// whose parent is empty. While Locked waits for others, waiting is called once,
// if it isn't nil; ctx ends the wait.
//
// A cache has numbered instances, caches/<key>/<n>/fs. Each is used under the
// flock(2) of the file beside it: shared for Shared, exclusive otherwise. So the
// kernel ends the use by a process that is killed.
func (cs *Caches) Open(ctx context.Context, key digest.Digest, sharing Sharing, waiting func(), fill func(path string) error) (*CacheMount, error) {
	c, err := cs.open(ctx, key, sharing, waiting, fill)
	if err != nil {
		return nil, fmt.Errorf("open cache mount: %w", err)
	}
	return c, nil
}

func (cs *Caches) open(ctx context.Context, key digest.Digest, sharing Sharing, waiting func(), fill func(path string) error) (*CacheMount, error) {
	if err := key.Validate(); err != nil {
		return nil, fmt.Errorf("key %q: %w", key, err)
	}
	dir := filepath.Join(cs.dir, key.Encoded())
	for {
		c, err := cs.try(ctx, dir, sharing, fill)
		if c != nil || err != nil {
			return c, err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(cachePause):
		}
	}
}

// cachePause is how often a waiting user looks again. A blocking flock(2) can't
// be given up when the build is cancelled.
const cachePause = 50 * time.Millisecond

// try returns an instance, a new one if need be, or nil if Locked has
// to wait. Under the guard one user at a time looks and makes.
func (cs *Caches) try(ctx context.Context, dir string, sharing Sharing, fill func(path string) error) (*CacheMount, error) {
	release, err := lockCaches(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer release()
	instances, err := cacheInstances(dir)
	if err != nil {
		return nil, err
	}
	if instances, err = cs.intactInstances(dir, instances); err != nil {
		return nil, err
	}
	next := 0
	for _, n := range instances {
		c, err := cs.openInstance(filepath.Join(dir, strconv.Itoa(n)), sharing)
		if c != nil || err != nil {
			return c, err
		}
		next = n + 1
	}
	if sharing == Locked && len(instances) > 0 {
		return nil, nil
	}
	return cs.newInstance(filepath.Join(dir, strconv.Itoa(next)), sharing, fill)
}

// lockCaches takes the guard of dir, which it makes. While it is held Prune doesn't
// remove dir for being empty.
func lockCaches(ctx context.Context, dir string) (release func(), err error) {
	for {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		release, err = locks.Wait(ctx, filepath.Join(dir, locks.GuardName), nil)
		if !errors.Is(err, fs.ErrNotExist) {
			return release, err
		}
	}
}

// cacheInstances returns the numbers of the instances in dir, in order.
func cacheInstances(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil && e.IsDir() {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// madeName is the file of an instance that is sealed when it has been filled. What
// commands write afterwards lies on the disk itself and is as safe from a power
// failure as they make it; it is theirs, and stays.
const madeName = "made"

// intact reports whether the instance in dir still holds what it was filled with.
func (cs *Caches) intact(dir string) bool {
	data, err := os.ReadFile(filepath.Join(dir, madeName))
	if err != nil {
		return false
	}
	_, ok := cs.boots.Unseal(data)
	return ok
}

// intactInstances returns which of the instances in dir are intact, and removes the others.
func (cs *Caches) intactInstances(dir string, numbers []int) (left []int, err error) {
	for _, n := range numbers {
		path := filepath.Join(dir, strconv.Itoa(n))
		if cs.intact(path) {
			left = append(left, n)
			continue
		}
		if err := cs.bin.Throw(path); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// openInstance returns the instance in dir, nil if others keep it from
// being used.
func (cs *Caches) openInstance(dir string, sharing Sharing) (*CacheMount, error) {
	lock, err := lockInstance(dir, sharing)
	if lock == nil {
		return nil, err
	}
	if err := cs.usage.Touch(lock.Name()); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &CacheMount{root: filepath.Join(dir, "fs"), lock: lock}, nil
}

// lockInstance takes the lock of the instance in dir. It returns nil if others
// keep it from being taken.
func lockInstance(dir string, sharing Sharing) (*locks.Held, error) {
	lock, err := locks.Open(filepath.Join(dir, locks.Name), sharing.how()|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, nil
	}
	return lock, err
}

func (s Sharing) how() int {
	if s == Shared {
		return unix.LOCK_SH
	}
	return unix.LOCK_EX
}

// newInstance makes the instance dir. It is filled as a claim, whose lock
// becomes the instance's.
func (cs *Caches) newInstance(dir string, sharing Sharing, fill func(path string) error) (*CacheMount, error) {
	c, err := locks.NewClaim(cs.active)
	if err != nil {
		return nil, err
	}
	err = fill(filepath.Join(c.Path, "fs"))
	if err == nil {
		err = os.WriteFile(filepath.Join(c.Path, madeName), cs.boots.Seal(nil), 0o600)
	}
	var lock *locks.Held
	if err == nil {
		// Nobody else looks for an instance meanwhile, so that the lock, which becomes a
		// shared one, is lost to nobody.
		lock, err = c.HandOver(dir, sharing.how())
	}
	if err != nil {
		return nil, errors.Join(err, cs.bin.Discard(c))
	}
	return &CacheMount{root: filepath.Join(dir, "fs"), lock: lock}, nil
}
