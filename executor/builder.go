package executor

import (
	"context"
	"errors"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/source"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
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
func (b *Builder) attempt(ctx context.Context, plans []*dockerfile.Plan, o Options, progress *event.Reporter, lost []digest.Digest) (result *Result, missing digest.Digest, err error) {
	bd, err := newBuild(ctx, b, plans, o, progress, lost)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, bd.sources.Close()) }()
	stages := newStages(bd)
	bd.group.Go(func() error { return bd.caches.Import(bd.life) })
	stages.begin()
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

// newBuild returns a build. It refuses a plan that can't be run here or isn't allowed,
// a strict plan with warnings, and a destination of the image that can't be reached.
// The layers lost are layers of caches that can't be fetched. b and o are complete. The
// caller waits for the group of the build and then closes its sources.
func newBuild(ctx context.Context, b *Builder, plans []*dockerfile.Plan, o Options, progress *event.Reporter, lost []digest.Digest) (*build, error) {
	bd := &build{
		Builder: b, plan: plans[0], plans: plans, opts: o, progress: progress,
		policy: newPolicy(b, &o), stopwatch: stopwatch{limit: o.StepTimeout},
		inResult: make(map[*dockerfile.Stage]bool),
	}
	for _, p := range plans {
		bd.remark(p.Warnings)
		for s := p.Target(); s != nil; s = s.Base.Stage {
			bd.inResult[s] = true
		}
	}
	if err := bd.policy.check(bd.allStages()); err != nil {
		return nil, err
	}
	if err := o.Check(bd.platforms()); err != nil {
		return nil, err
	}
	if err := bd.policy.prepare(ctx, bd.allStages()); err != nil {
		return nil, err
	}
	bd.group, bd.life = errgroup.WithContext(ctx)
	// The end of the build is not a failure of what was under way. The error of a step
	// is reported with its place.
	progress.Excuse(func(err error) bool {
		_, placed := errors.AsType[*StepError](err)
		return placed || endedBy(bd.life, err)
	})
	bd.sources = source.New(source.Options{
		Registry: b.Registry, Store: b.Store, Fetch: b.Fetch, Progress: progress,
		Jobs: o.copiesAtOnce(), Platforms: len(plans) > 1, LeaveOut: o.LeaveOut, Limit: bd.stopwatch.bounded,
	})
	if err := bd.equip(lost); err != nil {
		return nil, errors.Join(err, bd.group.Wait(), bd.sources.Close())
	}
	return bd, nil
}

// equip completes a build for newBuild. The build has only its sources so far and gets
// its caches, commands and exporter.
func (b *build) equip(lost []digest.Digest) (err error) {
	if b.plan.Strict {
		if err := b.approve(b.life); err != nil {
			return err
		}
	}
	if b.exporter, err = b.newExporter(b.life); err != nil {
		return err
	}
	b.caches = b.newCaches(lost)
	b.results = &results{
		store: b.Store, clock: b.Clock, progress: b.progress, stopwatch: &b.stopwatch,
		jobs: semaphore.NewWeighted(int64(b.opts.Jobs)), copies: semaphore.NewWeighted(int64(b.opts.copiesAtOnce())),
		noCache:  b.opts.NoCache,
		imported: b.imported, explain: b.explain, layers: make(map[string]*image.Layer),
	}
	b.commands = command.New(command.Options{
		Runner: b.Runner, Store: b.Store, Progress: b.progress, Imported: b.importedMount,
		Network: b.opts.Network, ExtraHosts: b.opts.ExtraHosts, ShmSize: b.opts.ShmSize, Ulimits: b.opts.Ulimits,
		Secrets: b.opts.Secrets, SSH: b.opts.SSH, CABundle: b.opts.CABundle,
	})
	return nil
}
