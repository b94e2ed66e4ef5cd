package pruning_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/pruning"
	"github.com/bobbuild/bob/snapshot/internal/usage"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A shelf keeps snapshots that are only entries, by the order of their last use.
type shelf struct {
	entries []pruning.Entry
	stuck   string // can't be removed
	removed []string
}

func (s *shelf) List(_ context.Context, _ bool, add func(pruning.Entry)) error {
	for _, e := range s.entries {
		add(e)
	}
	return nil
}

var errStuck = errors.New("stuck")

func (s *shelf) Remove(e pruning.Entry) (bool, error) {
	if e.ID == s.stuck {
		return false, errStuck
	}
	s.removed = append(s.removed, e.ID)
	return true, nil
}

func TestPrune(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "tmp"), 0o700))
	u, err := usage.Begin(dir)
	must(t, err)
	t.Cleanup(func() { _ = u.Drop() })
	start := time.Now().Add(-time.Hour)
	// a is the base of b and c; d lies on nothing. Each has 10 bytes and was used a minute
	// after the one before it.
	entries := func(change func(map[string]*pruning.Entry)) []pruning.Entry {
		byID := map[string]*pruning.Entry{}
		for i, id := range []string{"a", "b", "c", "d"} {
			e := &pruning.Entry{Path: "/nowhere/" + id, Mark: "/nowhere/" + id}
			e.Item = pruning.Item{Kind: pruning.Snapshot, ID: id, Size: 10, Used: start.Add(time.Duration(i) * time.Minute)}
			byID[id] = e
		}
		byID["b"].Parent, byID["c"].Parent = "a", "a"
		change(byID)
		return []pruning.Entry{*byID["d"], *byID["b"], *byID["a"], *byID["c"]}
	}
	nothing := func(map[string]*pruning.Entry) {}
	for name, c := range map[string]struct {
		options pruning.Options
		change  func(map[string]*pruning.Entry)
		stuck   string
		want    string
	}{
		"all, what lies on others first": {want: "b c a d"},
		"until enough is free":           {options: pruning.Options{Keep: 25}, want: "b c"},
		"nothing to do":                  {options: pruning.Options{Keep: 40}, want: ""},
		"what is old":                    {options: pruning.Options{Before: start.Add(150 * time.Second)}, want: "b c a"},
		"what matches": {
			options: pruning.Options{Match: func(it pruning.Item) bool { return it.ID != "c" }}, want: "b d", // c holds a
		},
		"in use":          {change: func(m map[string]*pruning.Entry) { m["b"].InUse = true }, want: "c d"}, // and so is a
		"used by this":    {change: func(m map[string]*pruning.Entry) { m["b"].Used = u.Opened() }, want: "c d"},
		"lost is removed": {options: pruning.Options{Keep: 40}, change: func(m map[string]*pruning.Entry) { m["a"].Lost = true }, want: "a"},
		"stuck":           {stuck: "b", want: "c d"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			change := c.change
			if change == nil {
				change = nothing
			}
			s := &shelf{entries: entries(change), stuck: c.stuck}
			store := &pruning.Store{Usage: u, Keepers: []pruning.Keeper{s}}
			removed, err := store.Prune(t.Context(), c.options)
			if (c.stuck != "") != errors.Is(err, errStuck) || c.stuck == "" && err != nil {
				t.Errorf("error %v", err)
			}
			var ids []string
			for _, it := range removed {
				ids = append(ids, it.ID)
			}
			if got := strings.Join(ids, " "); got != c.want || !slices.Equal(ids, s.removed) {
				t.Errorf("removed %q, says %q, want %q", s.removed, got, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := fmt.Errorf("enough")
	cancel(cause)
	s := &shelf{entries: entries(nothing)}
	if removed, err := (&pruning.Store{Usage: u, Keepers: []pruning.Keeper{s}}).Prune(ctx, pruning.Options{}); !errors.Is(err, cause) || len(removed) > 0 {
		t.Errorf("canceled: removed %v, %v", removed, err)
	}
}
