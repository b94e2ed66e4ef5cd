package executor

import (
	"context"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// A forecast is the state in which a stage would end according to the records of its
// steps. It is computed key by key, as the stage is built, but it runs nothing, builds
// no other stage and fetches no file of an image. If a key needs content that must be
// read first, there is no forecast. A step whose sources are forecast is prepared with
// their forecast keys. If its result is known, the source stages are never built.
// Otherwise they are built, and the step is prepared once more, since their results may
// differ from the forecast.

// lookahead makes the forecasts of a build.
type lookahead struct {
	*build

	outlines *outlines
	origins  *origins

	stages memo.Map[*dockerfile.Stage, *state]
	steps  memo.Map[forecastKey, *operation]
}

// stage returns the forecast of s, errNoForecast if there can't be one. An error of the
// stage's base is returned as it is.
func (l *lookahead) stage(ctx context.Context, s *dockerfile.Stage) (*state, error) {
	return l.stages.Get(ctx, s, func(ctx context.Context) (*state, error) {
		o, err := l.outlines.of(ctx, s)
		if err != nil {
			return nil, err
		}
		st, err := l.last(ctx, s, o)
		if err != nil {
			return nil, errNoForecast // the stage itself reports the error, if it is built
		}
		return st, nil
	})
}

// last goes through the steps of s.
func (l *lookahead) last(ctx context.Context, s *dockerfile.Stage, o *outline) (*state, error) {
	if s.NoCache || l.opts.NoCache {
		return nil, errNoForecast
	}
	base := o.base
	if s.Base.Stage != nil {
		var err error
		if base, err = l.stage(ctx, s.Base.Stage); err != nil {
			return nil, err
		}
	}
	st := base.begun()
	st.image, st.basis = o.image, forecast
	for i, step := range o.steps {
		if step.Op == nil {
			continue
		}
		op, err := l.step(ctx, &st, task{Step: step, stage: s, place: i})
		if err != nil {
			return nil, err
		}
		if found := l.results.recallAfter(ctx, &st, op); found != nil {
			st = *st.with(op.key, found.Layer, found.RootFS, step.History)
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

// step returns the operation of t after st. It builds no stage and fetches no file of
// an image. The error is errNoForecast if the operation needs either.
func (l *lookahead) step(ctx context.Context, st *state, t task) (*operation, error) {
	key := forecastKey{t.stage, t.place, st.key, st.rootfs.ID(), st.unmade}
	return l.steps.Get(ctx, key, func(ctx context.Context) (*operation, error) {
		at := *st
		at.basis = forecast
		return site{build: l.build, after: &at, stage: t.stage, find: l.find}.operation(ctx, t.Op)
	})
}

// find returns the forecast of what from names for a step of s. A stage whose last
// result isn't known is built if its files turn out to be needed.
func (l *lookahead) find(ctx context.Context, from dockerfile.From, s *dockerfile.Stage) (*origin, error) {
	if from.Stage == nil {
		return l.origins.find(ctx, from, s)
	}
	st, err := l.stage(ctx, from.Stage)
	if err != nil {
		return nil, err
	}
	o := l.origins.of(st)
	if st.unmade {
		files := source.Later("", func(ctx context.Context) (*snapshot.Snapshot, error) {
			built, err := l.origins.built(ctx, from.Stage)
			if err != nil {
				return nil, err
			}
			return built.rootfs.Snapshot(ctx)
		})
		o.rootfs, o.open = files, viewOf(l.sources, files)
	}
	return o, nil
}
