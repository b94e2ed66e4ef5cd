package executor

import (
	"context"
	"errors"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/opencontainers/go-digest"
)

// Build runs plan and delivers its result. The first failure ends everything
// else that is under way; it is a [*StepError] when an instruction is to blame.
// When Build returns nothing of it is running or mounted any more.
func (b *Builder) Build(ctx context.Context, plan *dockerfile.Plan, o Options) (*Result, error) {
	return b.BuildAll(ctx, []*dockerfile.Plan{plan}, o)
}

// BuildAll is [Builder.Build] of plans that are for different platforms, at the
// same time. With more than one the result is an index of their images, in the order
// of the plans. What they have in common is done once.
func (b *Builder) BuildAll(ctx context.Context, plans []*dockerfile.Plan, o Options) (*Result, error) {
	if err := o.complete(plans); err != nil {
		return nil, err
	}
	b = b.complete()
	progress := event.NewReporter(b.Progress, b.Clock)
	var lost []digest.Digest // layers of caches that can't be had
	for {
		result, missing, err := b.attempt(ctx, plans, o, progress, lost)
		if missing == "" {
			return result, err
		}
		lost = append(lost, missing)
	}
}

// attempt takes a build from its first stage to its last byte. It returns only when
// every goroutine of the build has ended and all is unmounted. If the build failed for
// want of a layer of an imported cache, missing names that.
func (b *Builder) attempt(ctx context.Context, plans []*dockerfile.Plan, o Options, progress *event.Reporter, lost []digest.Digest) (result *Result, missing digest.Digest, err error) {
	bd, err := newBuild(ctx, b, plans, o, progress)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, bd.sources.Close()) }()
	if err := bd.equip(lost); err != nil {
		return nil, "", errors.Join(err, bd.group.Wait())
	}
	stages := newStages(bd)
	bd.group.Go(func() error { return bd.caches.Import(bd.life) })
	stages.begin(bd.life)
	bd.group.Go(func() error {
		var targets []*state
		for _, p := range plans {
			st, err := stages.last(bd.life, p.Target())
			if err != nil {
				return err
			}
			targets = append(targets, st)
		}
		var err error
		result, err = bd.deliver(bd.life, targets)
		return err
	})
	if err := bd.group.Wait(); err != nil {
		err = bd.stopwatch.blame(ctx, bd.life, err)
		return nil, bd.caches.LostLayer(ctx, err), err
	}
	result.Cache = bd.explained.Cases()
	return result, "", nil
}
