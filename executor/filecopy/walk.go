package filecopy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// chunkFiles and chunkBytes bound what one worker takes at a time: enough
	// to make handing it over cheap, little enough to keep the others busy.
	chunkFiles = 64
	chunkBytes = 4 << 20
)

// workers is how many goroutines read and write files at once. They wait for
// the disk more than they compute, hence two at least.
func workers() int { return min(max(2, runtime.GOMAXPROCS(0)), 16) }

// held is an open directory that a walk and the workers share; the last to
// release it runs last.
type held struct {
	refs atomic.Int32
	last func() error
}

func newHeld(last func() error) *held {
	h := &held{last: last}
	h.refs.Store(1)
	return h
}

func (h *held) retain() { h.refs.Add(1) }

// release gives up one reference and adds the error of the last one to err.
func (h *held) release(err *error) {
	if h.refs.Add(-1) > 0 {
		return
	}
	if e := h.last(); e != nil && *err == nil {
		*err = e
	}
}

// chunks cuts nodes into runs for the workers.
func chunks[T any](items []T, size func(T) int64) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		start, sum := 0, int64(0)
		for i, item := range items {
			sum += size(item)
			if i-start+1 == chunkFiles || sum >= chunkBytes || i == len(items)-1 {
				if !yield(items[start : i+1]) {
					return
				}
				start, sum = i+1, 0
			}
		}
	}
}

// withWorkers runs walk, which hands work to the bounded group, and waits for
// all of it. The first error of any ends the context of all and is returned.
func withWorkers(ctx context.Context, walk func(context.Context, *errgroup.Group) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers())
	err := walk(ctx, g)
	if err != nil {
		cancel()
	}
	other := g.Wait()
	if err == nil || other != nil && errors.Is(err, context.Canceled) {
		return other
	}
	return err
}

// enter opens the directory n of a selection, in dir.
func enter(dir int, n *node, rel string) (int, error) {
	fd, err := openat(dir, n.name, openDir)
	if err == nil {
		return fd, nil
	}
	if replaced(err) {
		return -1, fmt.Errorf("%q: %w", rel, ErrChanged)
	}
	return -1, fmt.Errorf("open %q: %w", rel, err)
}

// enterSource opens the directory that a source is (or is in, if it is a file).
func (t *Tree) enterSource(src *source) (int, error) {
	rel := src.rel
	if !isDir(src.node.mode) {
		rel = path.Dir(rel)
	}
	flags := openNode
	if isDir(src.node.mode) {
		flags = openDir
	}
	fd, err := openBeneath(t.fd, rel, flags)
	if err == nil {
		return fd, nil
	}
	if replaced(err) {
		return -1, fmt.Errorf("%q: %w", rel, ErrChanged)
	}
	return -1, fmt.Errorf("open %q: %w", rel, err)
}

// openFile opens the regular file n in dir and checks that it is the one that
// was selected.
func openFile(dir int, n *node) (int, unix.Stat_t, error) {
	fd, err := openat(dir, n.name, openData)
	if err != nil {
		if replaced(err) {
			return -1, unix.Stat_t{}, ErrChanged
		}
		return -1, unix.Stat_t{}, fmt.Errorf("open: %w", err)
	}
	st, err := sameFile(fd, n)
	if err != nil {
		closeFD(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// sameFile fails if the open file isn't, or isn't any more, as it was selected.
func sameFile(fd int, n *node) (unix.Stat_t, error) {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstat(fd, &st) })
	if err != nil {
		return st, fmt.Errorf("stat: %w", err)
	}
	if !n.unchanged(&st) {
		return st, fmt.Errorf("%w (it had %d bytes, now %d)", ErrChanged, n.size, st.Size)
	}
	return st, nil
}

// sparse reports whether the file may have holes.
func sparse(st *unix.Stat_t) bool { return st.Blocks*512 < st.Size }
