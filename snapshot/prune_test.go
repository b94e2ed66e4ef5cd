package snapshot_test

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// A larder is a store of some of everything, which was last used at known times
// long ago.
type larder struct {
	t            *testing.T
	dir          string
	blob, record digest.Digest
	mount        digest.Digest
	base         string // a snapshot, with young and old on it
	young, old   string
	alone        string
}

func newLarder(t *testing.T) *larder {
	t.Helper()
	needMounts(t)
	l := &larder{t: t, dir: t.TempDir(), record: digest.FromString("record"), mount: digest.FromString("mount")}
	s, err := snapshot.Open(l.dir, snapshot.Options{})
	must(t, err)
	step := func(parent *snapshot.Snapshot, name string) *snapshot.Snapshot {
		a, err := s.Prepare(t.Context(), parent)
		must(t, err)
		write(t, a.Root()+"/"+name, strings.Repeat(name, 10000))
		sn, err := a.Commit()
		must(t, err)
		return sn
	}
	base := step(nil, "base")
	l.base, l.young, l.old, l.alone = base.ID(), step(base, "young").ID(), step(base, "old").ID(), step(nil, "alone").ID()
	w, err := s.CreateBlob()
	must(t, err)
	_, err = w.Write([]byte("blob"))
	must(t, err)
	l.blob, _, err = w.Commit()
	must(t, err, s.PutRecord("kind-1", l.record, []byte("r")))
	c, err := s.CacheMount(t.Context(), l.mount, snapshot.Shared, nil, func(path string) error { return os.Mkdir(path, 0o755) })
	must(t, err, c.Close(), s.Close())
	for hours, paths := range map[int][]string{
		1: {l.glob("ids/*/snapshots/" + l.young + "/meta.json")},
		2: {l.glob("ids/*/snapshots/" + l.alone + "/meta.json")},
		3: {l.glob("blobs/sha256/*")},
		4: {l.glob("records/kind-1/sha256/*")},
		5: {l.glob("ids/*/caches/*/0/lock")},
		6: {l.glob("ids/*/snapshots/" + l.old + "/meta.json"), l.glob("ids/*/snapshots/" + l.base + "/meta.json")},
	} {
		for _, p := range paths {
			then := time.Now().Add(-time.Duration(hours) * time.Hour)
			must(t, os.Chtimes(p, then, then))
		}
	}
	return l
}

// glob returns the one path that matches.
func (l *larder) glob(pattern string) string {
	l.t.Helper()
	found, err := filepath.Glob(filepath.Join(l.dir, pattern))
	must(l.t, err)
	if len(found) != 1 {
		l.t.Fatalf("%s matches %q", pattern, found)
	}
	return found[0]
}

// names calls items by their names here, in their order.
func (l *larder) names(items []snapshot.Item) []string {
	var names []string
	for _, it := range items {
		names = append(names, map[string]string{
			l.base: "base", l.young: "young", l.old: "old", l.alone: "alone", l.blob.String(): "blob",
			"kind-1/" + l.record.String(): "record", l.mount.Encoded() + "/0": "mount",
		}[it.ID])
	}
	return names
}

// open opens the store as another process would.
func (l *larder) open() *snapshot.Store {
	l.t.Helper()
	return openStore(l.t, l.dir)
}

func TestItems(t *testing.T) {
	t.Parallel()
	l := newLarder(t)
	s := l.open()
	_, err := s.Snapshot(l.young)
	must(t, err)
	items, err := s.Items(t.Context())
	must(t, err)
	slices.SortFunc(items, func(a, b snapshot.Item) int { return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.ID, b.ID)) })
	inUse := map[string]bool{}
	for i, it := range items {
		name := l.names(items)[i]
		inUse[name] = it.InUse
		// Of ext4's blocks of 4 KiB and of tmpfs's pages alike.
		if want := int64(30000); strings.Contains("base young old alone", name) && (it.Size < want || it.Size > want+60000) {
			t.Errorf("%s has %d bytes", name, it.Size)
		}
	}
	want := map[string]bool{"base": true, "young": true, "old": false, "alone": false, "blob": false, "record": false, "mount": false}
	if fmt.Sprint(inUse) != fmt.Sprint(want) {
		t.Errorf("in use are %v, want %v", inUse, want)
	}
	again, err := s.Items(t.Context())
	must(t, err)
	if len(again) != len(items) {
		t.Errorf("the second list has %d items, not %d", len(again), len(items))
	}
}

func TestPrune(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for what, c := range map[string]struct {
		use  func(*snapshot.Store, *larder) error // before, by the process that prunes
		o    snapshot.PruneOptions
		less int64 // so many bytes are too many
		want string
	}{
		"everything":        {o: snapshot.PruneOptions{}, want: "old mount record blob alone young base"},
		"keep all":          {o: snapshot.PruneOptions{Keep: 1 << 40}, want: ""},
		"keep a bit less":   {less: 1, want: "old"},
		"keep less":         {less: 80000, want: "old mount record blob alone"},
		"by age":            {o: snapshot.PruneOptions{Before: now.Add(-150 * time.Minute)}, want: "old mount record blob"},
		"by kind":           {o: snapshot.PruneOptions{Match: func(i snapshot.Item) bool { return i.Kind == snapshot.ItemBlob }}, want: "blob"},
		"no lower snapshot": {o: snapshot.PruneOptions{Match: func(i snapshot.Item) bool { return i.Parent == "" && i.Kind == snapshot.ItemSnapshot }}, want: "alone"},
		"used snapshot": {use: func(s *snapshot.Store, l *larder) error {
			_, err := s.Snapshot(l.old)
			return err
		}, want: "mount record blob alone young"},
		"used blob and record": {use: func(s *snapshot.Store, l *larder) error {
			f, err := s.OpenBlob(t.Context(), l.blob)
			if err != nil {
				return err
			}
			_, err = s.Record("kind-1", l.record)
			return errors.Join(f.Close(), err)
		}, want: "old mount alone young base"},
		"used mount": {use: func(s *snapshot.Store, l *larder) error {
			_, err := s.CacheMount(t.Context(), l.mount, snapshot.Shared, nil, nil)
			return err
		}, want: "old record blob alone young base"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			l := newLarder(t)
			s := l.open()
			if c.use != nil {
				must(t, c.use(s, l))
			}
			if c.less > 0 {
				items, err := s.Items(t.Context())
				must(t, err)
				for _, it := range items {
					c.o.Keep += it.Size
				}
				c.o.Keep -= c.less
			}
			removed, err := s.Prune(t.Context(), c.o)
			must(t, err)
			got := strings.Join(l.names(removed), " ")
			if got != c.want {
				t.Errorf("removed %q, want %q", got, c.want)
			}
			items, err := s.Items(t.Context())
			must(t, err)
			if len(items)+len(removed) != 7 {
				t.Errorf("%d are left of 7 without %d", len(items), len(removed))
			}
			must(t, s.Close())
			if left, err := os.ReadDir(l.glob("ids/*/garbage")); err != nil || len(left) > 0 {
				t.Errorf("the space is not free: %v, %v", left, err)
			}
		})
	}
}

// TestPruneSparesOthers has a process that opened the store earlier use something:
// to one that comes later it looks old and is in use all the same.
func TestPruneSparesOthers(t *testing.T) {
	t.Parallel()
	l := newLarder(t)
	first := l.open()
	_, err := first.Snapshot(l.young)
	must(t, err)
	second := l.open()
	removed, err := second.Prune(t.Context(), snapshot.PruneOptions{})
	must(t, err)
	if got := strings.Join(l.names(removed), " "); got != "old mount record blob alone" {
		t.Errorf("removed %q", got)
	}
	must(t, first.Close())
	third := l.open()
	must(t, second.Close())
	if removed, err = third.Prune(t.Context(), snapshot.PruneOptions{}); err != nil || len(removed) != 2 {
		t.Errorf("then removed %q, %v", l.names(removed), err)
	}
}

// TestPruneBesideUse removes snapshots all the time while others are made, found
// and mounted: what is found is there as long as it is wanted.
func TestPruneBesideUse(t *testing.T) {
	t.Parallel()
	needMounts(t)
	dir := t.TempDir()
	var done atomic.Bool
	var pruner sync.WaitGroup
	pruner.Go(func() {
		for !done.Load() {
			s, err := snapshot.Open(dir, snapshot.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Prune(t.Context(), snapshot.PruneOptions{}); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	var users sync.WaitGroup
	for user := range 2 {
		users.Go(func() {
			var last string
			for round := range 20 {
				if err := useStore(t, dir, fmt.Sprint(user, round), &last); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Wait()
	done.Store(true)
	pruner.Wait()
}

// useStore makes a snapshot on the last one, or on nothing if that was removed,
// and looks at both.
func useStore(t *testing.T, dir, name string, last *string) (err error) {
	s, err := snapshot.Open(dir, snapshot.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	var parent *snapshot.Snapshot
	if *last != "" {
		parent, err = s.Snapshot(*last)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	a, err := s.Prepare(t.Context(), parent)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(a.Root(), name), []byte(name), 0o644); err != nil {
		return err
	}
	sn, err := a.Commit()
	if err != nil {
		return err
	}
	for _, sn := range []*snapshot.Snapshot{parent, sn} {
		v, err := s.View(t.Context(), sn)
		if err != nil {
			return err
		}
		if err := v.Close(); err != nil {
			return err
		}
	}
	*last = sn.ID()
	return nil
}
