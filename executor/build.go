package executor

import (
	"context"
	"errors"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/explain"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/inputs"
	"github.com/bobbuild/bob/executor/source"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// A build is the state of one Build: everything that its stages share.
type build struct {
	*Builder
	plan  *dockerfile.Plan   // the first of plans, for what they have in common
	plans []*dockerfile.Plan // one for each platform
	opts  Options

	group     *errgroup.Group // all goroutines of the build; its first error is the build's
	life      context.Context //nolint:containedctx // of group: what is made for all outlives the step that asked first
	progress  *event.Reporter
	stopwatch stopwatch
	policy    policy
	results   *results
	commands  *command.Commands
	inResult  map[*dockerfile.Stage]bool // whose layers are part of the result
	exporter  *image.Exporter
	caches    *cache.Caches
	sources   *source.Sources

	reads     inputs.Reads // of the build context
	explained explain.Log
}

// newBuild returns a build that can read and nothing else yet; see equip. It refuses
// what can't be done here, or may not be. b and o are complete.
func newBuild(ctx context.Context, b *Builder, plans []*dockerfile.Plan, o Options, progress *event.Reporter) (*build, error) {
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
	// The end of the build is no fault of what was under way; neither is the error of a
	// step, which is told with its place.
	progress.Excuse(func(err error) bool {
		_, placed := errors.AsType[*StepError](err)
		return placed || endedBy(bd.life, err)
	})
	bd.sources = source.New(source.Options{
		Registry: b.Registry, Store: b.Store, Fetch: b.Fetch, Progress: progress,
		Jobs: o.Jobs, Platforms: len(plans) > 1, LeaveOut: o.LeaveOut, Limit: bd.stopwatch.bounded,
	})
	return bd, nil
}

// equip makes what steps are found, made and sent with, unless a strict plan has
// warnings or a place that the image is to go to can't be reached. The layers lost are
// those of caches that can't be had.
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
		jobs: semaphore.NewWeighted(int64(b.opts.Jobs)), noCache: b.opts.NoCache,
		imported: b.imported, explain: b.explain, layers: make(map[string]*image.Layer),
	}
	b.commands = command.New(command.Options{
		Runner: b.Runner, Store: b.Store, Progress: b.progress, Imported: b.importedMount,
		Network: b.opts.Network, ExtraHosts: b.opts.ExtraHosts, ShmSize: b.opts.ShmSize, Ulimits: b.opts.Ulimits,
		Secrets: b.opts.Secrets, SSH: b.opts.SSH, CABundle: b.opts.CABundle,
	})
	return nil
}

// allStages returns the stages of all plans.
func (b *build) allStages() []*dockerfile.Stage {
	var all []*dockerfile.Stage
	for _, p := range b.plans {
		all = append(all, p.Stages...)
	}
	return all
}

// created returns the time that the history has of f.
func (b *build) created(f *finding) *time.Time {
	if b.plan.Epoch != nil {
		return b.plan.Epoch
	}
	return &f.Created
}
