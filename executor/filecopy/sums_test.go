package filecopy_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/filecopy"
)

// notes are Sums that count.
type notes struct {
	mu          sync.Mutex
	sums        map[filecopy.FileID]filecopy.Sum
	found, kept int
}

func (n *notes) Find(id filecopy.FileID) (filecopy.Sum, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	sum, ok := n.sums[id]
	if ok {
		n.found++
	}
	return sum, ok
}

func (n *notes) Keep(id filecopy.FileID, sum filecopy.Sum) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sums[id] = sum
	n.kept++
}

// TestSums computes the digest of a directory again and again, with a memory.
func TestSums(t *testing.T) {
	t.Parallel()
	dir := build(t, "a", "d/b", "d/c", "l -> a")
	memory := &notes{sums: make(map[filecopy.FileID]filecopy.Sum)}
	later := func() time.Time { return time.Now().Add(time.Hour) }
	for _, step := range []struct {
		what        string
		change      func() error
		now         func() time.Time
		found, kept int
	}{
		{what: "files just made", now: time.Now},
		{what: "files of long ago", now: later, kept: 3},
		{what: "nothing changed", now: time.Now, found: 3},
		{what: "other bytes of the same size and time", change: func() error {
			name := filepath.Join(dir, "d/b")
			fi, err := os.Stat(name)
			must(t, err)
			must(t, os.WriteFile(name, []byte("d/B"), 0o644))
			return os.Chtimes(name, fi.ModTime(), fi.ModTime())
		}, now: later, found: 2, kept: 1},
		{what: "a file moved", change: func() error {
			return os.Rename(filepath.Join(dir, "d/c"), filepath.Join(dir, "d/e"))
		}, now: later, found: 2, kept: 1},
		{what: "a file replaced by another", change: func() error {
			return os.Rename(filepath.Join(dir, "d/b"), filepath.Join(dir, "a"))
		}, now: later, found: 1, kept: 1},
	} {
		if step.change != nil {
			must(t, step.change())
		}
		plain, err := pick(t, open(t, dir), ".").Digest(t.Context())
		must(t, err)
		tree := open(t, dir)
		tree.SetClock(step.now)
		tree.Remember(memory)
		memory.found, memory.kept = 0, 0
		got, err := pick(t, tree, ".").Digest(t.Context())
		must(t, err)
		if got != plain {
			t.Errorf("%s: the digest is %s, without memory %s", step.what, got, plain)
		}
		if memory.found != step.found || memory.kept != step.kept {
			t.Errorf("%s: found %d and kept %d, want %d and %d", step.what, memory.found, memory.kept, step.found, step.kept)
		}
	}
	// What is remembered is believed: the file isn't read.
	for id := range memory.sums {
		memory.sums[id] = filecopy.Sum{}
	}
	plain, err := pick(t, open(t, dir), ".").Digest(t.Context())
	must(t, err)
	tree := open(t, dir)
	tree.Remember(memory)
	if got, err := pick(t, tree, ".").Digest(t.Context()); err != nil || got == plain {
		t.Errorf("files were read: %v", err)
	}
}
