package executor

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/memo"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// stages builds the stages of a plan: each once, when its files are needed.
type stages struct {
	*build

	origins  *origins
	outlines *outlines
	ahead    *lookahead

	all    memo.Map[*dockerfile.Stage, *state]
	looked memo.Value[struct{}] // that what steps take from this machine is there
}

func newStages(b *build) *stages {
	w := &stages{build: b}
	w.origins = &origins{
		sources: b.sources, context: b.opts.Context, ignore: b.opts.Ignore, contexts: b.opts.Contexts,
		built: w.last, noteRead: b.reads.Note,
	}
	w.outlines = &outlines{build: b, origins: w.origins}
	w.ahead = &lookahead{build: b, outlines: w.outlines, origins: w.origins}
	return w
}

// begin starts the stages to build, and the search for missing sources.
func (w *stages) begin() {
	w.group.Go(func() error { return w.awaitSources(w.life) })
	w.group.Go(func() error {
		_ = w.scout(true).look(w.life) // the error of a base is told by its stage
		return nil
	})
	for _, s := range w.plans.stages() {
		w.beginOne(s)
	}
}

// scout returns the scout that looks for missing sources, remote ones or those on this
// machine.
func (w *stages) scout(remote bool) scout {
	return scout{build: w.build, outlines: w.outlines, origins: w.origins, remote: remote}
}

// beginOne starts s if its files are part of the result, or nothing of it is to be run.
// Other stages start when somebody needs their files.
func (w *stages) beginOne(s *dockerfile.Stage) {
	if w.inResult[s] {
		w.startStage(s)
		return
	}
	w.group.Go(func() error {
		st, err := w.ahead.stage(w.life, s)
		if errors.Is(err, errNoForecast) {
			return nil
		}
		if err == nil && !st.unmade {
			w.startStage(s)
		}
		return err
	})
}

// startStage begins to build s, whoever waits for it.
func (w *stages) startStage(s *dockerfile.Stage) {
	w.group.Go(func() error {
		_, err := w.last(w.life, s)
		return err
	})
}

// awaitPlaces returns when the destinations of the image have been reached and the search
// for sources on this machine has ended, so that no step runs in vain.
func (w *stages) awaitPlaces(ctx context.Context) error {
	return cmp.Or(w.exporter.Reached(ctx), w.awaitSources(ctx))
}

// awaitSources returns when the search for sources on this machine has ended.
func (w *stages) awaitSources(ctx context.Context) error {
	_, err := w.looked.Get(ctx, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, w.scout(false).look(ctx)
	})
	return err
}

// targets returns the last states of the stages that the plans are for.
func (w *stages) targets(ctx context.Context) (targets []*state, err error) {
	for _, p := range w.plans {
		st, err := w.last(ctx, p.Target())
		if err != nil {
			return nil, err
		}
		targets = append(targets, st)
	}
	return targets, nil
}

// last returns the last state of s, which is built if it isn't yet.
func (w *stages) last(ctx context.Context, s *dockerfile.Stage) (*state, error) {
	return w.all.Get(ctx, s, func(ctx context.Context) (*state, error) {
		return w.make(ctx, s)
	})
}

// make goes through the steps of s.
func (w *stages) make(ctx context.Context, s *dockerfile.Stage) (_ *state, err error) {
	o, err := w.outlines.of(ctx, s)
	if err != nil {
		return nil, err
	}
	base := o.base
	if s.Base.Stage != nil {
		if base, err = w.last(ctx, s.Base.Stage); err != nil {
			return nil, err
		}
	}
	if err := w.policy.prepareSteps(ctx, s, o.platform, o.steps); err != nil {
		return nil, err
	}
	n := w.plans.counter(s, o.steps)
	if s.Base.Reference != "" {
		n.next() // the FROM itself, shown when its layers are needed
	}
	book := w.notebook(s)
	defer func() { err = errors.Join(err, book.Save()) }()
	st := base.begun()
	st.image = o.image
	for i, step := range o.steps {
		if step.Op == nil {
			step.History.Created = w.plan.Epoch
			st.history = appendHistory(st.history, step.History)
			continue
		}
		next, err := w.step(ctx, &st, task{step, s, i, book, n.next(), func() {
			for _, later := range o.steps[i:] {
				for _, from := range stagesOf(later.Op) {
					w.startStage(from)
				}
			}
		}})
		if err != nil {
			return nil, w.stopwatch.place(err, step)
		}
		st = *next
	}
	return &st, nil
}

// step brings st past a step that has an operation, by finding the result or by
// making it.
func (w *stages) step(ctx context.Context, st *state, t task) (*state, error) {
	op, err := w.prepare(ctx, st, t)
	if err != nil {
		if early := w.awaitPlaces(ctx); early != nil {
			return nil, early // is told
		}
		w.progress.Fail(t.title(), err)
		return nil, err
	}
	q := request{
		operation: op, title: t.title(), entry: w.note(st, t, op),
		anew: op.basis == anew || st.basis == anew || t.stage.NoCache || w.opts.NoCache,
		before: func(ctx context.Context) error {
			t.demand()
			return w.awaitPlaces(ctx)
		},
	}
	f, err := w.results.find(ctx, st.rootfs, q)
	if err != nil {
		return nil, err
	}
	if err := q.entry.End(ctx, q.title, f.hit); err != nil {
		return nil, err
	}
	next := w.after(st, t, f)
	next.basis = settled
	if q.anew {
		next.basis = anew
	}
	return next, nil
}

// after returns the state behind t, whose result is f.
func (w *stages) after(st *state, t task, f *finding) *state {
	t.History.Created = w.created(f)
	f.Layer.Place(func(err error) error { return locate(err, t.Step) })
	if w.exports(t.stage) {
		w.exporter.Start(f.Layer)
	}
	w.noteStep(t.stage, st.layers, f)
	next := st.with(f.Key, f.Layer, f.RootFS, t.History)
	if next.missing != nil {
		next.missing = &ocispec.History{Created: t.History.Created, CreatedBy: describe(t), Comment: next.missing.Comment}
	}
	return next
}

// describe returns BuildKit's description of the layer that t makes.
func describe(t task) string {
	if run, ok := t.Op.(*dockerfile.Run); ok {
		return "mount / from exec " + strings.Join(run.Args, " ")
	}
	return t.title()
}

// prepare returns the operation of t, which comes after st. It builds the stages that
// the operation takes files from only if the result can't be found without them.
func (w *stages) prepare(ctx context.Context, st *state, t task) (*operation, error) {
	op, err := w.ahead.step(ctx, st, t)
	switch {
	case errors.Is(err, errNoForecast):
	case err != nil:
		return nil, err
	case op.basis != forecast || st.basis != anew && !t.stage.NoCache && w.results.recallAfter(ctx, st, op) != nil:
		return op, nil
	}
	t.demand()
	return site{build: w.build, after: st, stage: t.stage, find: w.origins.find}.operation(ctx, t.Op)
}
