package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/locks"
	"golang.org/x/sys/unix"
)

// PruneOptions say what Prune removes. The zero value removes everything that is
// not in use.
type PruneOptions struct {
	// Keep is how many bytes may stay, those of what isn't removed for other
	// reasons included: the least recently used go until no more are left.
	Keep int64
	// Before, unless it is zero, spares what was used at that time or later.
	Before time.Time
	// Match, unless it is nil, says what may be removed at all.
	Match func(Item) bool
}

// Prune removes what the store keeps, the least recently used first, and returns
// what it removed. Nothing goes that a living process has used, nor a snapshot
// that another one lies on. Any number of processes may use the store meanwhile. What
// can't be removed keeps nothing else from it; the first reason is returned.
// The space is free when the store is closed.
func (s *Store) Prune(ctx context.Context, o PruneOptions) ([]Item, error) {
	removed, err := s.prune(ctx, o)
	if err == nil {
		err = s.pruneLocks()
	}
	if err == nil {
		err = s.pruneCaches()
	}
	if err == nil {
		err = s.pruneSynced()
	}
	s.collect()
	if err != nil {
		return removed, fmt.Errorf("prune store %s: %w", s.dir, err)
	}
	return removed, nil
}

func (s *Store) prune(ctx context.Context, o PruneOptions) (removed []Item, failed error) {
	items, err := s.items(ctx, false)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(items, func(a, b Item) int {
		// Snapshots are never used less recently than what lies on them.
		return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(b.depth, a.depth))
	})
	var total int64
	above := make(map[string]int) // how many snapshots lie on one
	for _, it := range items {
		total += it.Size
		above[it.Parent]++
	}
	for _, it := range items {
		if it.Kind != ItemCacheMount && it.marked.After(it.Used) && !it.lost {
			// It looked younger than anything can be, and is of this age from now on.
			if err := s.use(it.mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = cmp.Or(failed, err)
			}
		}
	}
	for _, it := range items {
		switch {
		case total <= o.Keep && !it.lost:
			continue
		case it.InUse, !o.Before.IsZero() && !it.Used.Before(o.Before), o.Match != nil && !o.Match(it):
			continue
		case it.Kind == ItemSnapshot && above[it.ID] > 0 && !it.lost:
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return removed, err
		}
		gone, err := s.remove(it)
		if failed = cmp.Or(failed, err); !gone {
			continue
		}
		removed = append(removed, it)
		total -= it.Size
		above[it.Parent]--
	}
	return removed, failed
}

// pruneLocks removes the files of locks that killed processes have held.
func (s *Store) pruneLocks() error {
	return eachEntry(s.own("locks"), func(e fs.DirEntry) error {
		unlock, err := locks.Try(filepath.Join(s.own("locks"), e.Name()))
		if unlock != nil {
			unlock()
		}
		return err
	})
}

// pruneCaches removes the directories of caches without an instance.
func (s *Store) pruneCaches() error {
	return eachEntry(s.own("caches"), func(e fs.DirEntry) error {
		err := os.Remove(filepath.Join(s.own("caches"), e.Name()))
		if errors.Is(err, unix.ENOTEMPTY) {
			return nil
		}
		return err
	})
}

// syncedBoots is of how many boots the store remembers what was on the disk. What older
// ones wrote counts as lost.
const syncedBoots = 100

// pruneSynced removes what is remembered of older boots.
func (s *Store) pruneSynced() error {
	type mark struct {
		path string
		at   time.Time
	}
	var marks []mark
	err := eachEntry(s.path(syncedName), func(e fs.DirEntry) error {
		path := filepath.Join(s.path(syncedName), e.Name())
		at, err := modTime(path)
		marks = append(marks, mark{path, at})
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(marks, func(a, b mark) int { return b.at.Compare(a.at) })
	for _, m := range marks[min(len(marks), syncedBoots):] {
		if err := os.Remove(m.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// remove removes it unless it has been used since it was listed.
func (s *Store) remove(it Item) (gone bool, err error) {
	if it.Kind == ItemCacheMount {
		return s.removeCacheMount(it)
	}
	lock, err := s.lockUse(unix.LOCK_EX)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	used, err := modTime(it.mark)
	if err == nil && used.Equal(it.marked) {
		err = s.throw(it.path)
		gone = err == nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // another process was faster
	}
	if gone {
		s.metas.Delete(it.ID)
	}
	return gone, err
}

// removeCacheMount is remove for a cache mount, which has locks of its own.
func (s *Store) removeCacheMount(it Item) (bool, error) {
	guard, err := locks.Try(filepath.Join(filepath.Dir(it.path), locks.GuardName))
	if guard == nil || err != nil {
		return false, err // it is being opened
	}
	defer guard()
	lock, err := lockCacheInstance(it.path, Locked)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // another process was faster
	}
	if lock == nil || err != nil {
		return false, err
	}
	defer lock.Close()
	return true, s.throw(it.path)
}
