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
	// basis is the basis of the key. If it is anew, a known result isn't used.
	basis basis
	// before is called if the result has to be made, before that.
	before func(context.Context) error
	// command says that a command is run, which may do nothing but wait. Others copy files.
	command bool
	// run changes the file system of the step. It reports to v.
	run func(ctx context.Context, to *snapshot.Active, v *event.Vertex) error

	explanation // of the key
}

// An explanation holds the inputs of a step's key.
type explanation struct {
	inputs []recipe.Input
	files  []*filecopy.Selection // of this machine
	entry  *explain.Entry        // nil if the operation isn't a step
}

// wanted is the question that a finding answers.
type wanted struct {
	key  digest.Digest
	anew bool
}

// A finding is a known result of a step.
type finding struct {
	cache.Result

	hit bool // it was known, not made by this build
}

// results finds the known results of the steps of a build, and makes the others.
type results struct {
	store     *snapshot.Store
	clock     func() time.Time
	progress  *event.Reporter
	stopwatch *stopwatch
	jobs      *semaphore.Weighted // operations under way
	copies    *semaphore.Weighted // those of them that copy files
	noCache   bool                // nothing is known
	// imported returns the result of the operation key over below from an imported
	// cache, nil if no cache has it.
	imported func(ctx context.Context, below *source.RootFS, key digest.Digest) *finding
	// explain reports whether the result of op was known and why, if explanations were
	// asked for.
	explain func(ctx context.Context, v *event.Vertex, op *operation, title string, known bool)

	findings memo.Map[wanted, *finding]

	mu     sync.Mutex
	layers map[string]*image.Layer // made by steps, by the ID of the snapshot
}

// find looks up the result of op over below, or makes it. Equal steps, which two
// platforms may have, are done and shown once in a build.
func (r *results) find(ctx context.Context, below *source.RootFS, op *operation, title string) (*finding, error) {
	return r.findings.Get(ctx, wanted{op.key, op.basis == anew}, func(ctx context.Context) (*finding, error) {
		f := r.known(ctx, below, op)
		if f == nil {
			if err := op.before(ctx); err != nil {
				return nil, err
			}
		}
		if f == nil && op.basis != anew {
			// Another process may be doing the same step.
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

// known returns the known result of op over below, nil if no result is known or it
// isn't to be used.
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
	if !op.command {
		if err := r.copies.Acquire(ctx, 1); err != nil {
			return nil, context.Cause(ctx)
		}
		defer r.copies.Release(1)
	}
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

// record stores snap as the result of key.
func (r *results) record(key digest.Digest, snap *snapshot.Snapshot) (*finding, error) {
	created := r.clock().UTC()
	if err := cache.Remember(r.store, key, snap.ID(), created); err != nil {
		return nil, err
	}
	return r.found(key, snap, created), nil
}

// found returns the finding for snap, which is known under key.
func (r *results) found(key digest.Digest, snap *snapshot.Snapshot, created time.Time) *finding {
	return &finding{Result: cache.Result{Key: key, Created: created, Layer: r.layerOf(snap), RootFS: source.Present(snap)}}
}

// recallAfter returns the known result of the operation key after st. It returns nil if
// no result is known, or if the file system below has yet to be made.
func (r *results) recallAfter(ctx context.Context, st *state, key digest.Digest) *finding {
	if st.unmade {
		return nil
	}
	return r.recall(ctx, st.rootfs, key)
}

// recall returns the known result of the operation key over below, from the store or
// else from an imported cache; nil if it isn't known. A result over another file system
// doesn't count: the steps below were made anew since.
func (r *results) recall(ctx context.Context, below *source.RootFS, key digest.Digest) *finding {
	if f := r.lookup(below, key); f != nil {
		return f
	}
	return r.imported(ctx, below, key)
}

// lookup returns the result in the store under key. It returns nil if the store has no
// result, or one that isn't wanted, isn't over below or isn't whole any more.
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
