package executor

import (
	"context"
	"errors"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// A forecast is the state that a stage would end with if what is remembered of its steps
// holds. It is computed as the stage is built, key by key, but runs nothing, builds no
// other stage and fetches no file of an image: where a key needs content that must be read
// first there is no forecast. A step whose sources are forecast is prepared with the keys
// that they would have. If its result is known, those stages are never built. If it isn't,
// they are built, and the step is prepared once more, since they may come out otherwise.

// errNoForecast says that something can't be told unless a stage is built, or the files of
// an image are fetched.
var errNoForecast = errors.New("not to be told in advance")

// forecast returns the forecast of s, errNoForecast if there can't be one. An error of
// the stage's base is told as that.
func (b *build) forecast(ctx context.Context, s *dockerfile.Stage) (*state, error) {
	return b.forecasts.Get(ctx, s, func(ctx context.Context) (*state, error) {
		o, err := b.outline(ctx, s)
		if err != nil {
			return nil, err
		}
		st, err := b.forecastSteps(ctx, s, o)
		if err != nil {
			return nil, errNoForecast // the stage itself will tell, if it is built
		}
		return st, nil
	})
}

func (b *build) forecastSteps(ctx context.Context, s *dockerfile.Stage, o *outline) (*state, error) {
	if s.NoCache || b.opts.NoCache {
		return nil, errNoForecast
	}
	base := o.base
	if s.Base.Stage != nil {
		var err error
		if base, err = b.forecast(ctx, s.Base.Stage); err != nil {
			return nil, err
		}
	}
	st := base.begun()
	st.image, st.basis = o.image, forecast
	for i, step := range o.steps {
		if step.Op == nil {
			continue
		}
		op, err := b.forecastStep(ctx, &st, task{Step: step, stage: s, place: i})
		if err != nil {
			return nil, err
		}
		if found := b.recallAfter(ctx, &st, op.key); found != nil {
			st = *st.with(op.key, found.layer, found.rootfs, step.History)
		} else {
			st.key, st.unmade = op.key, true
		}
	}
	return &st, nil
}

// A forecastKey is what the forecast of an operation depends on.
type forecastKey struct {
	stage  *dockerfile.Stage
	place  int // of the step in it
	key    digest.Digest
	below  string // ID of the root file system
	unmade bool
}

// forecastStep returns the operation of t after st, for which no stage is built and no
// file of an image fetched; errNoForecast if that doesn't do.
func (b *build) forecastStep(ctx context.Context, st *state, t task) (*operation, error) {
	key := forecastKey{t.stage, t.place, st.key, st.rootfs.ID(), st.unmade}
	return b.prepared.Get(ctx, key, func(ctx context.Context) (*operation, error) {
		at := *st
		at.basis = forecast
		return b.operation(ctx, &at, t)
	})
}

// recallAfter returns the known result of the operation key after st; nil if there is
// none, or what it would lie on has yet to be made.
func (b *build) recallAfter(ctx context.Context, st *state, key digest.Digest) *finding {
	if st.unmade {
		return nil
	}
	return b.results.recall(ctx, st.rootfs, key)
}

// prepare returns the operation of t, which comes after st. The stages that it takes
// files from are built only if its result can't be found without.
func (b *build) prepare(ctx context.Context, st *state, t task) (*operation, error) {
	op, err := b.forecastStep(ctx, st, t)
	switch {
	case errors.Is(err, errNoForecast):
	case err != nil:
		return nil, err
	case op.basis != forecast || st.basis != anew && !t.stage.NoCache && b.recallAfter(ctx, st, op.key) != nil:
		own := *op
		return &own, nil
	}
	t.demand()
	return b.operation(ctx, st, t)
}

// forecastOrigin returns the files of s, whose forecast is st. The stage is built when
// they are needed after all.
func (b *build) forecastOrigin(st *state, s *dockerfile.Stage) *origin {
	o := b.stateOrigin(st)
	if st.unmade {
		o.rootfs = &rootfs{RootFS: source.Later("", func(ctx context.Context) (*snapshot.Snapshot, error) {
			built, err := b.stage(ctx, s)
			if err != nil {
				return nil, err
			}
			return built.rootfs.Snapshot(ctx)
		})}
		o.open = b.viewOf(o.rootfs)
	}
	return o
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
