package executor

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/explain"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

// An operation is what a step does to the file system, ready to run.
type operation struct {
	// key identifies the result; see package recipe.
	key digest.Digest
	// basis is the basis of the key. If it is anew, a known result won't do.
	basis basis
	// before is called before the result is made, when it has to be.
	before func(context.Context) error
	// run changes the file system of the step. It reports to v.
	run func(ctx context.Context, to *snapshot.Active, v *event.Vertex) error

	explanation // of the key
}

// An explanation is what a step's key was made of.
type explanation struct {
	inputs []recipe.Input
	files  []*filecopy.Selection // of this machine
	entry  *explain.Entry        // nil for what is no step
}

// wanted is what a finding is an answer to.
type wanted struct {
	key  digest.Digest
	anew bool
}

// A finding is a known result of a step.
type finding struct {
	cache.Result

	hit bool // it wasn't made by this build
}

// results are what the steps of a build come to: those that are known, and those that it
// makes.
type results struct {
	store     *snapshot.Store
	clock     func() time.Time
	progress  *event.Reporter
	stopwatch *stopwatch
	jobs      *semaphore.Weighted // operations under way
	noCache   bool                // nothing is known
	// imported returns the result of the operation key over below that an imported cache
	// has, nil if none has it.
	imported func(ctx context.Context, below *source.RootFS, key digest.Digest) *finding
	// explain tells why the result of op was known or not, if that was asked for.
	explain func(ctx context.Context, v *event.Vertex, op *operation, title string, known bool)

	findings memo.Map[wanted, *finding]

	mu     sync.Mutex
	layers map[string]*image.Layer // made by steps, by the ID of the snapshot
}

// find returns the result of op over below, by looking it up or by making it. Equal steps,
// which two platforms may have, are done once in a build and shown once.
func (r *results) find(ctx context.Context, below *source.RootFS, op *operation, title string) (*finding, error) {
	return r.findings.Get(ctx, wanted{op.key, op.basis == anew}, func(ctx context.Context) (*finding, error) {
		f := r.known(ctx, below, op)
		if f == nil {
			if err := op.before(ctx); err != nil {
				return nil, err
			}
		}
		if f == nil && op.basis != anew {
			// Another process may be at the same step.
			release, err := r.store.Lock(ctx, op.key, r.progress.Waiting(title, "runs the same step"))
			if err != nil {
				return nil, err
			}
			defer release()
			f = r.known(ctx, below, op)
		}
		if f != nil {
			f.hit = true
			v := r.progress.Start(title)
			r.explain(ctx, v, op, title, true)
			v.Cached()
			return f, nil
		}
		parent, err := below.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		return r.make(ctx, parent, op, title)
	})
}

// known returns the known result of op over below, nil if that is nothing or won't do.
func (r *results) known(ctx context.Context, below *source.RootFS, op *operation) *finding {
	if op.basis == anew {
		return nil
	}
	return r.recall(ctx, below, op.key)
}

// make runs op over parent, when its turn has come, and remembers the result.
func (r *results) make(ctx context.Context, parent *snapshot.Snapshot, op *operation, title string) (*finding, error) {
	if err := r.jobs.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	defer r.jobs.Release(1)
	v := r.progress.Start(title)
	r.explain(ctx, v, op, title, false)
	var snap *snapshot.Snapshot
	err := r.stopwatch.bounded(ctx, func(ctx context.Context) (err error) {
		snap, err = r.execute(ctx, parent, op, v)
		return err
	})
	v.Done(err)
	if err != nil {
		return nil, err
	}
	return r.record(op.key, snap)
}

// record remembers snap as the result that key stands for.
func (r *results) record(key digest.Digest, snap *snapshot.Snapshot) (*finding, error) {
	created := r.clock().UTC()
	if err := cache.Remember(r.store, key, snap.ID(), created); err != nil {
		return nil, err
	}
	return r.found(key, snap, created), nil
}

// found is the finding that snap, which is known under key, is.
func (r *results) found(key digest.Digest, snap *snapshot.Snapshot, created time.Time) *finding {
	return &finding{Result: cache.Result{Key: key, Created: created, Layer: r.layerOf(snap), RootFS: source.Present(snap)}}
}

// recallAfter returns the known result of the operation key after st; nil if there is
// none, or what it would lie on has yet to be made.
func (r *results) recallAfter(ctx context.Context, st *state, key digest.Digest) *finding {
	if st.unmade {
		return nil
	}
	return r.recall(ctx, st.rootfs, key)
}

// recall returns the known result of the operation key over below, from the store or
// else from an imported cache; nil if it isn't known. A result that lies on something
// else doesn't count: what is below was made anew then.
func (r *results) recall(ctx context.Context, below *source.RootFS, key digest.Digest) *finding {
	if f := r.lookup(below, key); f != nil {
		return f
	}
	return r.imported(ctx, below, key)
}

// lookup returns what the store knows under key, nil if that is nothing, not wanted,
// not over below, or not whole any more.
func (r *results) lookup(below *source.RootFS, key digest.Digest) *finding {
	if r.noCache {
		return nil
	}
	snap, created := cache.Recall(r.store, key)
	if snap == nil || snap.Parent() != below.ID() {
		return nil
	}
	return r.found(key, snap, created)
}

// execute runs op over parent and commits what it changed.
func (r *results) execute(ctx context.Context, parent *snapshot.Snapshot, op *operation, v *event.Vertex) (snap *snapshot.Snapshot, err error) {
	active, err := r.store.Prepare(ctx, parent)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, active.Discard())
		}
	}()
	if err := op.run(ctx, active, v); err != nil {
		return nil, err
	}
	return active.Commit()
}

// layerOf is the layer of a step's snapshot, one for each snapshot.
func (r *results) layerOf(snap *snapshot.Snapshot) *image.Layer {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.layers[snap.ID()]
	if l == nil {
		l = image.Made(snap)
		r.layers[snap.ID()] = l
	}
	return l
}
