package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/committed"
	"github.com/bobbuild/bob/snapshot/internal/content"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/internal/locks"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// An unpackedFinder finds the snapshots that lie on the disk.
type unpackedFinder interface {
	// has reports by its error whether the snapshot id needn't be unpacked.
	has(id string) error
	// layers returns the directories that make up the snapshot id, top first.
	layers(id string) ([]string, error)
}

// unpackLayers unpacks layers over the snapshot parent, as far as they aren't found, and
// returns the ID of the snapshot on top.
func (p *part) unpackLayers(ctx context.Context, found unpackedFinder, parent string, all []content.Layer, jobs int) (string, error) {
	if jobs < 1 {
		jobs = runtime.GOMAXPROCS(0)
	}
	u := &unpacking{
		part: p, found: found,
		slots: semaphore.NewWeighted(int64(jobs)), begun: semaphore.NewWeighted(int64(file.OpenShare(16))),
	}
	ids := content.StackIDs(parent, all)
	group, gctx := errgroup.WithContext(ctx)
	settled := make(chan struct{})
	close(settled)
	for i := u.present(ids); i < len(all); i++ {
		// Slots are taken base first: a layer waits for those below it, which
		// then always have one.
		if u.begun.Acquire(gctx, 1) != nil || u.slots.Acquire(gctx, 1) != nil {
			break
		}
		j := job{layer: all[i], id: ids[i], parent: parent, below: settled, done: make(chan struct{})}
		if i > 0 {
			j.parent = ids[i-1]
		}
		settled = j.done
		group.Go(func() error {
			defer u.begun.Release(1)
			if err := u.run(gctx, j); err != nil {
				return fmt.Errorf("unpack layer %s: %w", j.layer.Name(), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("unpack: %w", context.Cause(ctx))
	}
	return ids[len(ids)-1], nil
}

// unpacking is one call of unpack.
type unpacking struct {
	*part

	found unpackedFinder
	slots *semaphore.Weighted // for opened layers
	begun *semaphore.Weighted // for layers that aren't snapshots yet: each has files open
}

// job is the unpacking of one layer.
type job struct {
	layer      content.Layer
	id, parent string
	below      <-chan struct{} // closed when the parent is a snapshot
	done       chan struct{}   // closed when this is one
}

// present returns how many layers the store has, from the base.
func (u *unpacking) present(ids []string) int {
	for n := len(ids); n > 0; n-- {
		if u.found.has(ids[n-1]) == nil {
			return n
		}
	}
	return 0
}

// run makes the snapshot of j. The caller has taken a slot, which run gives back.
func (u *unpacking) run(ctx context.Context, j job) error {
	release := func() { u.slots.Release(1) }
	defer func() { release() }()
	unlock, err := locks.Wait(ctx, filepath.Join(u.path("locks"), j.id), j.layer.Waiting)
	if err != nil {
		return err
	}
	defer unlock()
	if err := u.found.has(j.id); err == nil {
		close(j.done) // another process was quicker
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, x, err := u.extract(ctx, j.layer)
	if err != nil {
		return err
	}
	defer x.Close()
	release() // what follows is short, or waiting for those that need a slot
	release = func() {}
	select {
	case <-ctx.Done():
		return errors.Join(context.Cause(ctx), u.bin.Discard(c))
	case <-j.below:
	}
	if err := u.finish(ctx, c, x, j); err != nil {
		return errors.Join(err, u.bin.Discard(c))
	}
	close(j.done)
	return nil
}

// extract extracts l into a claim of its own, as often as its reader asks for.
func (u *unpacking) extract(ctx context.Context, l content.Layer) (*locks.Claim, *layertar.Layer, error) {
	for {
		c, err := locks.NewClaim(u.active())
		if err != nil {
			return nil, nil, err
		}
		x, err := u.extractOnce(ctx, c, l)
		if err == nil {
			return c, x, nil
		}
		if discarded := u.bin.Discard(c); discarded != nil || !content.Again(err) {
			return nil, nil, errors.Join(err, discarded)
		}
	}
}

// finish settles the extracted layer and makes it a snapshot.
func (u *unpacking) finish(ctx context.Context, c *locks.Claim, x *layertar.Layer, j job) error {
	var lower []string
	if j.parent != "" {
		var err error
		if lower, err = u.found.layers(j.parent); err != nil {
			return err
		}
	}
	opaque, err := x.Settle(ctx, lower)
	if err != nil {
		return err
	}
	return u.snapshots.Keep(c, j.id, committed.Meta{Parent: j.parent, Opaque: opaque})
}

// extractOnce extracts l by itself into the directory fs of c and checks its
// DiffID. The caller closes the tree of the extractor.
func (u *unpacking) extractOnce(ctx context.Context, c *locks.Claim, l content.Layer) (*layertar.Layer, error) {
	root := filepath.Join(c.Path, "fs")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, err
	}
	budget := bounded.NewBudget(u.maxUnpacked)
	x, err := layertar.NewLayer(root, u.owners, u.marks, budget)
	if err != nil {
		return nil, err
	}
	if err := l.Stream(ctx, budget, x.Extract); err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}
