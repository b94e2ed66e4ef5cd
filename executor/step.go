package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An operation is what a step does to the file system, ready to run.
type operation struct {
	// key identifies the result; see package recipe.
	key digest.Digest
	// basis is that of the key. If it is anew, a known result won't do.
	basis basis
	// before is called before the result is made, when it has to be.
	before func(context.Context) error
	// run changes the file system of the step. It reports to v.
	run func(ctx context.Context, to *snapshot.Active, v *event.Vertex) error

	explanation // of the key
}

// A stepRecord is what the store remembers of a step under its key.
type stepRecord struct {
	Snapshot string    // ID of the snapshot
	Created  time.Time // when the step ended, for the history
}

const recordKind = "step-2"

// A task is a step with its place in the build.
type task struct {
	dockerfile.Step
	stage  *dockerfile.Stage
	place  int // among the steps of stage
	book   *notebook
	number string // as the progress has it: "[2/5]"
	// demand starts the stages that this step and those behind it take files from.
	demand func()
}

// wanted is what a finding is an answer to.
type wanted struct {
	key  digest.Digest
	anew bool
}

// A finding is a known result of a step.
type finding struct {
	key     digest.Digest
	created time.Time // when the step ended, for the history
	layer   *layer
	rootfs  *rootfs
	hit     bool // it wasn't made by this build
}

// step brings st past a step that has an operation, by finding the result or by
// making it.
func (b *build) step(ctx context.Context, st *state, t task) (*state, error) {
	op, err := b.prepare(ctx, st, t)
	if err != nil {
		if early := b.awaitSources(ctx); early != nil {
			return nil, early // is told
		}
		b.progress.Fail(t.title(), err)
		return nil, err
	}
	op.before = func(ctx context.Context) error {
		t.demand()
		return b.awaitSources(ctx)
	}
	if st.basis == anew || t.stage.NoCache || b.opts.NoCache {
		op.basis = anew
	}
	t.book.open(st, t, op)
	f, err := b.find(ctx, st.rootfs, op, t.title())
	if err != nil {
		return nil, err
	}
	if err := t.book.close(ctx, t, op, f); err != nil {
		return nil, err
	}
	next := b.after(st, t, f)
	next.basis = settled
	if op.basis == anew {
		next.basis = anew
	}
	return next, nil
}

// find returns the result of op over below, by looking it up or by making it. Steps
// that come to the same, as those of two platforms may, are done once in a build and
// shown once.
func (b *build) find(ctx context.Context, below *rootfs, op *operation, title string) (*finding, error) {
	return b.findings.Get(ctx, wanted{op.key, op.basis == anew}, func(ctx context.Context) (*finding, error) {
		f := b.known(ctx, below, op)
		if f == nil {
			if err := op.before(ctx); err != nil {
				return nil, err
			}
		}
		if f == nil && op.basis != anew {
			// Another process may be at the same step.
			release, err := b.Store.Lock(ctx, op.key, b.progress.Waiting(title, "runs the same step"))
			if err != nil {
				return nil, err
			}
			defer release()
			f = b.known(ctx, below, op)
		}
		if f != nil {
			f.hit = true
			v := b.progress.Start(title)
			b.explain(ctx, v, op, title, true)
			v.Cached()
			return f, nil
		}
		parent, err := below.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		return b.make(ctx, parent, op, title)
	})
}

// known returns the known result of op over below, nil if that is nothing or won't do.
func (b *build) known(ctx context.Context, below *rootfs, op *operation) *finding {
	if op.basis == anew {
		return nil
	}
	return b.recall(ctx, below, op.key)
}

// make runs op over parent, when its turn has come, and remembers the result.
func (b *build) make(ctx context.Context, parent *snapshot.Snapshot, op *operation, title string) (*finding, error) {
	var snap *snapshot.Snapshot
	err := b.limited(ctx, func() (err error) {
		v := b.progress.Start(title)
		b.explain(ctx, v, op, title, false)
		err = b.stopwatch.bounded(ctx, func(ctx context.Context) (err error) {
			snap, err = b.execute(ctx, parent, op, v)
			return err
		})
		v.Done(err)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b.record(op.key, snap)
}

// record remembers snap as the result that key stands for.
func (b *build) record(key digest.Digest, snap *snapshot.Snapshot) (*finding, error) {
	rec := &stepRecord{Snapshot: snap.ID(), Created: b.Clock().UTC()}
	if err := b.remember(recordKind, key, rec); err != nil {
		return nil, err
	}
	return b.found(key, rec, snap), nil
}

// found is the finding that rec, which is known under key, tells of.
func (b *build) found(key digest.Digest, rec *stepRecord, snap *snapshot.Snapshot) *finding {
	return &finding{key: key, created: rec.Created, layer: b.layerOf(snap), rootfs: present(snap)}
}

func (t task) title() string { return t.number + " " + t.Text }

// operation prepares the operation of t, which comes after st.
func (b *build) operation(ctx context.Context, st *state, t task) (*operation, error) {
	switch op := t.Op.(type) {
	case *dockerfile.Run:
		return b.runOperation(ctx, st, op, t.stage)
	case *dockerfile.Copy:
		return b.copyOperation(ctx, st, op, t.stage)
	case *dockerfile.Workdir:
		return b.workdirOperation(st, op)
	default:
		return nil, fmt.Errorf("no operation %T", op)
	}
}

// execute runs op over parent and commits what it changed.
func (b *build) execute(ctx context.Context, parent *snapshot.Snapshot, op *operation, v *event.Vertex) (snap *snapshot.Snapshot, err error) {
	active, err := b.Store.Prepare(ctx, parent)
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

// after returns the state behind t, whose result is f.
func (b *build) after(st *state, t task, f *finding) *state {
	t.History.Created = b.created(f)
	f.layer.step.CompareAndSwap(nil, &t.Step)
	if b.exports.wants(t.stage) {
		b.start(f.layer)
	}
	b.noteStep(t.stage, st.layers, f)
	next := st.with(f.key, f.layer, f.rootfs, t.History)
	if next.missing != nil {
		next.missing = &ocispec.History{Created: t.History.Created, CreatedBy: describe(t), Comment: next.missing.Comment}
	}
	return next
}

// created returns the time that the history has of f.
func (b *build) created(f *finding) *time.Time {
	if b.plan.Epoch != nil {
		return b.plan.Epoch
	}
	return &f.created
}

// describe returns what BuildKit calls the layer that t makes.
func describe(t task) string {
	if run, ok := t.Op.(*dockerfile.Run); ok {
		return "mount / from exec " + strings.Join(run.Args, " ")
	}
	return t.title()
}

// recallAfter returns the known result of the operation key after st; nil if there is
// none, or what it would lie on has yet to be made.
func (b *build) recallAfter(ctx context.Context, st *state, key digest.Digest) *finding {
	if st.unmade {
		return nil
	}
	return b.recall(ctx, st.rootfs, key)
}

// recall returns the known result of the operation key over below, from the store or
// else from an imported cache; nil if there is none. A result that lies on something
// else, since what is below was made anew, doesn't count.
func (b *build) recall(ctx context.Context, below *rootfs, key digest.Digest) *finding {
	if f := b.lookup(below, key); f != nil {
		return f
	}
	return b.imported(ctx, below, key)
}

// lookup returns what the store knows under key, nil if that is nothing, not wanted,
// not over below, or not whole any more.
func (b *build) lookup(below *rootfs, key digest.Digest) *finding {
	if b.opts.NoCache {
		return nil
	}
	data, err := b.Store.Record(recordKind, key)
	if err != nil {
		return nil
	}
	rec := &stepRecord{}
	if json.Unmarshal(data, rec) != nil {
		return nil
	}
	snap, err := b.Store.Snapshot(rec.Snapshot)
	if err != nil || snap.Parent() != below.ID() {
		return nil
	}
	return b.found(key, rec, snap)
}

func (b *build) remember(kind string, key digest.Digest, rec any) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return b.Store.PutRecord(kind, key, data)
}
