package executor

import (
	"context"
	"errors"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// A forecast is what can be told of a stage before any of its steps is done: the last
// state, if what is remembered of such a stage holds. Its rootfs is nil where that would
// have to be made.
type forecast struct {
	*state

	known bool // the results of all its steps are there
}

// errUnforeseen is that something can't be told unless a stage is built, or the files of
// an image are fetched.
var errUnforeseen = errors.New("not to be told in advance")

// forecast returns the forecast of s, nil if there can't be one.
func (b *build) forecast(ctx context.Context, s *dockerfile.Stage) (*forecast, error) {
	return b.forecasts.Get(ctx, s, func(ctx context.Context) (*forecast, error) {
		o, err := b.outline(ctx, s)
		if err != nil {
			return nil, err
		}
		f, err := b.foresee(ctx, s, o)
		if err != nil {
			return nil, nil //nolint:nilerr,nilnil // the stage itself will tell, if it is built
		}
		return f, nil
	})
}

func (b *build) foresee(ctx context.Context, s *dockerfile.Stage, o *outline) (*forecast, error) {
	if s.NoCache || b.opts.NoCache {
		return nil, errUnforeseen
	}
	f := &forecast{state: o.base, known: true}
	if s.Base.Stage != nil {
		base, err := b.forecast(ctx, s.Base.Stage)
		if err != nil {
			return nil, err
		}
		if base == nil {
			return nil, errUnforeseen
		}
		f = base
	}
	st := f.begun()
	st.image, st.ahead = o.image, true
	known := f.known
	for i, step := range o.steps {
		if step.Op == nil {
			continue
		}
		op, err := b.ahead(ctx, &st, task{Step: step, stage: s, place: i})
		if err != nil {
			return nil, err
		}
		if op.anew {
			return nil, errUnforeseen
		}
		next := st.with(op.key, nil, nil, step.History)
		if found := b.recall(ctx, st.rootfs, op.key); found != nil {
			next = st.with(op.key, found.layer, found.rootfs, step.History)
		}
		known = known && next.rootfs != nil
		st = *next
	}
	return &forecast{state: &st, known: known}, nil
}

// A foreseen is what an operation that is prepared ahead depends on.
type foreseen struct {
	stage *dockerfile.Stage
	place int // of the step in it
	key   digest.Digest
	below string // "" where that isn't known
}

// ahead returns the operation of t after st, for which no stage is built
// and no file of an image fetched; errUnforeseen if that doesn't do.
func (b *build) ahead(ctx context.Context, st *state, t task) (*operation, error) {
	at := *st
	at.ahead = true
	key := foreseen{stage: t.stage, place: t.place, key: st.key}
	if st.rootfs != nil {
		key.below = "over " + st.rootfs.ID()
	}
	return b.prepared.Get(ctx, key, func(ctx context.Context) (*operation, error) { return b.operation(ctx, &at, t) })
}

// prepare returns the operation of t, which comes after st. The stages that it takes
// files from are built only if its result can't be found without.
func (b *build) prepare(ctx context.Context, st *state, t task) (*operation, error) {
	op, err := b.ahead(ctx, st, t)
	switch {
	case errors.Is(err, errUnforeseen):
	case err != nil:
		return nil, err
	case !op.foreseen || !st.anew && !t.stage.NoCache && b.recall(ctx, st.rootfs, op.key) != nil:
		own := *op
		return &own, nil
	}
	t.demand()
	return b.operation(ctx, st, t)
}

// origin is that of s, whose last state f tells. The stage is built when its files are
// needed after all.
func (f *forecast) origin(b *build, s *dockerfile.Stage) *origin {
	if f.known {
		o := b.stateOrigin(f.state)
		o.foreseen = true
		return o
	}
	files := &rootfs{RootFS: source.Later("", func(ctx context.Context) (*snapshot.Snapshot, error) {
		st, err := b.stage(ctx, s)
		if err != nil {
			return nil, err
		}
		return st.rootfs.Snapshot(ctx)
	})}
	return &origin{key: f.key, owners: true, foreseen: true, rootfs: files, open: b.viewOf(files)}
}

// stagesOf returns the stages that op takes files from.
func stagesOf(op dockerfile.Op) (stages []*dockerfile.Stage) {
	add := func(from dockerfile.From) {
		if from.Stage != nil {
			stages = append(stages, from.Stage)
		}
	}
	switch op := op.(type) {
	case *dockerfile.Copy:
		add(op.From)
	case *dockerfile.Run:
		for _, m := range op.Mounts {
			switch m := m.(type) {
			case *dockerfile.BindMount:
				add(m.From)
			case *dockerfile.CacheMount:
				if m.From != nil && !emptied(m) {
					add(*m.From)
				}
			case *dockerfile.TmpfsMount, *dockerfile.SecretMount, *dockerfile.SSHMount: // of no stage
			}
		}
	case *dockerfile.Workdir: // takes none
	}
	return stages
}
