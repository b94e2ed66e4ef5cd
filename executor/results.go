package executor

import (
	"cmp"
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

// An operation is what a step does to the file system, ready to run. It is immutable.
type operation struct {
	// key identifies the result; see package recipe.
	key digest.Digest
	// alone, unless it is "", identifies what the operation makes in an empty file system,
	// which is then laid over that of the step: COPY and ADD with --link don't see that. As
	// in BuildKit, links in their way become directories, and existing directories get the
	// mode and owner of new ones.
	alone digest.Digest
	basis basis // of the key
	// command says that a command is run, which may do nothing but wait. Others copy files.
	command bool
	// run changes the file system of the step. It reports to v.
	run func(ctx context.Context, to *snapshot.Active, v *event.Vertex) error

	// For explanations: the inputs of the key, and the files of this machine among them.
	inputs []recipe.Input
	files  []*filecopy.Selection
}

// A request asks for the result of an operation.
type request struct {
	*operation

	title string // in the progress
	anew  bool   // a known result isn't used
	// before is called if the result has to be made, before that.
	before func(context.Context) error
	// entry explains whether the result is known; nil if the operation isn't a step.
	entry *explain.Entry
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
	caches    *cache.Caches
	explained *explain.Log

	findings memo.Map[wanted, *finding]

	mu     sync.Mutex
	layers map[string]*image.Layer // made by steps, by the ID of the snapshot
}

// find looks up the result of q over below, or makes it. Equal steps, which two
// platforms may have, are done and shown once in a build.
func (r *results) find(ctx context.Context, below *source.RootFS, q request) (*finding, error) {
	return r.findings.Get(ctx, wanted{q.key, q.anew}, func(ctx context.Context) (*finding, error) {
		f := r.known(ctx, below, q)
		if f == nil {
			if err := q.before(ctx); err != nil {
				return nil, err
			}
		}
		if f == nil && !q.anew {
			// Another process may be doing the same step.
			release, err := r.store.Lock(ctx, q.key, r.progress.Waiting(q.title, "runs the same step"))
			if err != nil {
				return nil, err
			}
			defer release()
			f = r.known(ctx, below, q)
		}
		if f != nil {
			f.hit = true
			r.start(ctx, q, true).Cached()
			return f, nil
		}
		return r.make(ctx, below, q)
	})
}

// start shows q in the progress, and explains whether its result is known.
func (r *results) start(ctx context.Context, q request, known bool) *event.Vertex {
	v := r.progress.Start(q.title)
	if q.entry != nil {
		r.explained.Add(ctx, v, q.entry, q.title, known)
	}
	return v
}

// known returns the known result of q over below, nil if no result is known or it isn't
// to be used.
func (r *results) known(ctx context.Context, below *source.RootFS, q request) *finding {
	if q.anew {
		return nil
	}
	return r.recall(ctx, below, q.operation)
}

// make runs q over below, when its turn has come, and remembers the result.
func (r *results) make(ctx context.Context, below *source.RootFS, q request) (*finding, error) {
	var parent *snapshot.Snapshot // nothing, for what is made alone
	if q.alone == "" {
		var err error
		if parent, err = below.Snapshot(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.jobs.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	defer r.jobs.Release(1)
	if !q.command {
		if err := r.copies.Acquire(ctx, 1); err != nil {
			return nil, context.Cause(ctx)
		}
		defer r.copies.Release(1)
	}
	v := r.start(ctx, q, false)
	var snap *snapshot.Snapshot
	err := r.stopwatch.bounded(ctx, func(ctx context.Context) (err error) {
		snap, err = r.execute(ctx, parent, func(ctx context.Context, to *snapshot.Active) error { return q.run(ctx, to, v) })
		return err
	})
	v.Done(err)
	if err != nil {
		return nil, err
	}
	return r.record(ctx, below, q.operation, snap)
}

// record stores snap as the result of op over below.
func (r *results) record(ctx context.Context, below *source.RootFS, op *operation, snap *snapshot.Snapshot) (*finding, error) {
	created := r.clock().UTC()
	if err := cache.Remember(r.store, cmp.Or(op.alone, op.key), snap.ID(), created); err != nil {
		return nil, err
	}
	if op.alone != "" {
		return r.laidOver(ctx, below, op, snap, created)
	}
	return r.found(op, snap, source.Present(snap), created), nil
}

// found returns the finding of op, whose layer is that of snap and leads to rootfs.
func (r *results) found(op *operation, snap *snapshot.Snapshot, rootfs *source.RootFS, created time.Time) *finding {
	return &finding{Result: cache.Result{Key: op.key, Created: created, Layer: r.layerOf(snap), RootFS: rootfs}}
}

// laidOver returns the finding of op, which made snap alone, over below. The files are laid
// over those below when somebody needs them.
func (r *results) laidOver(ctx context.Context, below *source.RootFS, op *operation, snap *snapshot.Snapshot, created time.Time) (*finding, error) {
	if below.ID() == "" {
		return r.found(op, snap, source.Present(snap), created), nil
	}
	layer, err := image.Unpackable(ctx, r.store, snap)
	if err != nil {
		return nil, err
	}
	rootfs := source.Later(snapshot.StackID(below.ID(), layer.DiffID), func(ctx context.Context) (*snapshot.Snapshot, error) {
		parent, err := below.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		return r.store.UnpackOver(ctx, parent, []snapshot.Layer{layer}, 1)
	})
	return r.found(op, snap, rootfs, created), nil
}

// recallAfter returns the known result of op after st. It returns nil if no result is
// known, or if the file system below has yet to be made.
func (r *results) recallAfter(ctx context.Context, st *state, op *operation) *finding {
	if st.unmade {
		return nil
	}
	return r.recall(ctx, st.rootfs, op)
}

// recall returns the known result of op over below, from the store or else from an
// imported cache; nil if it isn't known.
func (r *results) recall(ctx context.Context, below *source.RootFS, op *operation) *finding {
	if f := r.lookup(ctx, below, op); f != nil {
		return f
	}
	if found, ok := r.caches.Find(ctx, below, op.key); ok {
		return &finding{Result: found}
	}
	return nil
}

// lookup returns the result of op over below in the store. It returns nil if the store has
// no result, or one that isn't wanted or isn't whole any more. A result over another file
// system doesn't count: the steps below were made anew since.
func (r *results) lookup(ctx context.Context, below *source.RootFS, op *operation) *finding {
	if r.noCache {
		return nil
	}
	if snap, created := cache.Recall(r.store, op.key); snap != nil && snap.Parent() == below.ID() {
		return r.found(op, snap, source.Present(snap), created)
	}
	if op.alone == "" {
		return nil
	}
	snap, created := cache.Recall(r.store, op.alone)
	if snap == nil || snap.Parent() != "" {
		return nil
	}
	f, err := r.laidOver(ctx, below, op, snap, created)
	if err != nil {
		return nil // it is made anew
	}
	return f
}

// execute has run change the file system over parent, and commits the changes.
func (r *results) execute(ctx context.Context, parent *snapshot.Snapshot, run func(context.Context, *snapshot.Active) error) (snap *snapshot.Snapshot, err error) {
	active, err := r.store.Prepare(ctx, parent)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, active.Discard())
		}
	}()
	if err := run(ctx, active); err != nil {
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
