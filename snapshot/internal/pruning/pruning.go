// Package pruning lists what a store keeps and removes what was least recently used.
package pruning

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/usage"
)

// A Store is the keepers of a store, and this process's use of it.
type Store struct {
	Usage   *usage.Usage
	Keepers []Keeper
}

// Items lists all that the keepers have, in no order. What other processes remove
// meanwhile is left out.
func (s *Store) Items(ctx context.Context) ([]Item, error) {
	entries, err := s.entries(ctx, true)
	if err != nil {
		return nil, err
	}
	items := make([]Item, 0, len(entries))
	for _, e := range entries {
		items = append(items, e.Item)
	}
	return items, nil
}

// entries lists all that the store keeps. It measures directories that change anew if
// exact is set; otherwise they have the size that they had when they were last measured.
func (s *Store) entries(ctx context.Context, exact bool) ([]Entry, error) {
	oldest, alone, err := s.Usage.Oldest()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	if s.Usage.Opened().After(now) { // the clock was set back meanwhile
		alone = false
	}
	var items []Entry
	for _, k := range s.Keepers {
		err := k.List(ctx, exact, func(e Entry) {
			e.keeper = k
			items = append(items, e)
		})
		if err != nil {
			return nil, err
		}
	}
	snapshots := make(map[string]int, len(items)) // by ID
	for i, it := range items {
		it.marked = it.Used
		if it.Used.After(now) && alone { // the clock was wrong then
			it.Used = now
		} else if !it.Used.Before(oldest) {
			it.InUse = true
		}
		items[i] = it
		if it.Kind == Snapshot {
			snapshots[it.ID] = i
		}
	}
	for i := range items {
		for at := i; ; {
			below, found := snapshots[items[at].Parent]
			if !found || items[i].depth > len(items) {
				break
			}
			items[i].depth++
			items[below].support(items[at])
			at = below
		}
	}
	return items, nil
}

// support notes that e, on which above lies, is used whenever above is.
func (e *Entry) support(above Entry) {
	if e.Used.Before(above.Used) {
		e.Used = above.Used
	}
	e.InUse = e.InUse || above.InUse
}

// Options say what Prune removes. The zero value removes everything that is
// not in use.
type Options struct {
	// Keep is how many bytes may stay, those of what isn't removed for other
	// reasons included: the least recently used go until no more are left.
	Keep int64
	// Before, unless it is zero, spares what was used at that time or later.
	Before time.Time
	// Match, unless it is nil, says what may be removed at all.
	Match func(Item) bool
}

// Prune removes what the store keeps, the least recently used first, and returns what it
// removed. It removes nothing that a living process has used, and no snapshot that another
// one lies on. What can't be removed keeps nothing else from it; the first reason is
// returned.
func (s *Store) Prune(ctx context.Context, o Options) (removed []Item, failed error) {
	items, err := s.entries(ctx, false)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(items, func(a, b Entry) int {
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
		if it.Kind != CacheMount && it.marked.After(it.Used) && !it.Lost {
			// It looked younger than anything can be, and is of this age from now on.
			if err := s.Usage.Mark(it.Mark); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = cmp.Or(failed, err)
			}
		}
	}
	for _, it := range items {
		switch {
		case total <= o.Keep && !it.Lost:
			continue
		case it.InUse, !o.Before.IsZero() && !it.Used.Before(o.Before), o.Match != nil && !o.Match(it.Item):
			continue
		case it.Kind == Snapshot && above[it.ID] > 0 && !it.Lost:
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return removed, err
		}
		gone, err := it.keeper.Remove(it)
		if failed = cmp.Or(failed, err); !gone {
			continue
		}
		removed = append(removed, it.Item)
		total -= it.Size
		above[it.Parent]--
	}
	return removed, failed
}
