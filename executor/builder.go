package executor

import (
	"context"
	"errors"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/opencontainers/go-digest"
)

// Build runs plans for different platforms at the same time, and delivers their result.
// With several plans the result is an index of their images, in the order of the plans.
// Steps that plans have in common are done once. The first failure ends everything else
// that is under way; it is a [*StepError] when an instruction is to blame. When Build
// returns, none of its goroutines runs and none of its mounts is left.
func (b *Builder) Build(ctx context.Context, plans []*dockerfile.Plan, o Options) (*Result, error) {
	if err := o.complete(plans); err != nil {
		return nil, err
	}
	b = b.complete()
	progress := event.NewReporter(b.Progress, b.Clock)
	var lost []digest.Digest // layers of caches that can't be fetched
	for {
		result, missing, err := b.attempt(ctx, plans, o, progress, lost)
		if missing == "" {
			return result, err
		}
		lost = append(lost, missing)
	}
}

// attempt runs a whole build. It returns when every goroutine of the build has ended
// and everything is unmounted. If the build failed because a layer of an imported cache
// can't be fetched, missing is that layer.
func (b *Builder) attempt(ctx context.Context, all plans, o Options, progress *event.Reporter, lost []digest.Digest) (result *Result, missing digest.Digest, err error) {
	for _, p := range all {
		remark(progress, p.Warnings)
	}
	if err := b.admit(ctx, all, &o); err != nil {
		return nil, "", err
	}
	bd, err := b.newBuild(ctx, all, o, progress, lost)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, bd.sources.Close()) }()
	bd.group.Go(func() error { return bd.caches.Import(bd.life) })
	stages := newStages(bd)
	stages.begin()
	bd.group.Go(func() error {
		targets, err := stages.targets(bd.life)
		if err != nil {
			return err
		}
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

// admit refuses plans that can't be run here or aren't allowed, and options that don't
// fit them. o is complete.
func (b *Builder) admit(ctx context.Context, all plans, o *Options) error {
	p := newPolicy(b, o)
	if err := p.check(all.stages()); err != nil {
		return err
	}
	if err := o.Check(all.platforms()); err != nil {
		return err
	}
	return p.prepare(ctx, all.stages())
}
