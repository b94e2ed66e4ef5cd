package executor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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
	f, err := b.results.find(ctx, st.rootfs, op, t.title())
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
