package executor

import (
	"context"
	"errors"
	"fmt"
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
	b = b.complete()
	progress := event.NewReporter(b.Progress, b.Clock)
	var lost []digest.Digest
	for {
		bd, err := newBuild(b, plans, o, progress)
		if err != nil {
			return nil, err
		}
		bd.lost = lost
		result, err := bd.run(ctx)
		if bd.missing == "" {
			return result, err
		}
		lost = append(lost, bd.missing)
	}
}

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
	lost      []digest.Digest // layers of caches that can't be had
	missing   digest.Digest   // one more, for which the build failed; "" for none
	sources   *source.Sources

	reads     inputs.Reads // of the build context
	explained explain.Log
}

// newBuild checks what can be checked before anything happens. b is complete.
func newBuild(b *Builder, plans []*dockerfile.Plan, o Options, progress *event.Reporter) (*build, error) {
	if o.Jobs < 0 {
		return nil, fmt.Errorf("jobs: %d is negative", o.Jobs)
	}
	if o.Jobs == 0 {
		o.Jobs = defaultJobs()
	}
	d := o.destinations()
	if err := d.CheckFiles(); err != nil {
		return nil, err
	}
	for _, p := range plans[1:] {
		if one, other := p.Epoch, plans[0].Epoch; (one == nil) != (other == nil) || one != nil && !one.Equal(*other) {
			return nil, errors.New("SOURCE_DATE_EPOCH is not the same for all platforms: give it by --build-arg")
		}
	}
	bd := &build{
		Builder:   b,
		plan:      plans[0],
		plans:     plans,
		opts:      o,
		progress:  progress,
		policy:    newPolicy(b, &o),
		stopwatch: stopwatch{limit: o.StepTimeout},
		inResult:  make(map[*dockerfile.Stage]bool),
	}
	bd.sources = source.New(source.Options{
		Registry: b.Registry, Store: b.Store, Fetch: b.Fetch, Progress: bd.progress,
		Jobs: o.Jobs, Platforms: len(plans) > 1, LeaveOut: o.LeaveOut, Limit: bd.stopwatch.bounded,
	})
	bd.results = &results{
		store: b.Store, clock: b.Clock, progress: bd.progress, stopwatch: &bd.stopwatch,
		jobs: semaphore.NewWeighted(int64(o.Jobs)), noCache: o.NoCache,
		imported: bd.imported, explain: bd.explain, layers: make(map[string]*image.Layer),
	}
	bd.commands = command.New(command.Options{
		Runner: b.Runner, Store: b.Store, Progress: bd.progress, Imported: bd.importedMount,
		Network: o.Network, ExtraHosts: o.ExtraHosts, ShmSize: o.ShmSize, Ulimits: o.Ulimits,
		Secrets: o.Secrets, SSH: o.SSH, CABundle: o.CABundle,
	})
	for _, p := range plans {
		for s := p.Target(); s != nil; s = s.Base.Stage {
			bd.inResult[s] = true
		}
	}
	return bd, nil
}

// run takes the build from its first stage to its last byte. It returns only
// when every goroutine of the build has ended and all is unmounted.
func (b *build) run(ctx context.Context) (result *Result, err error) {
	defer func() { err = errors.Join(err, b.sources.Close()) }()

	for _, p := range b.plans {
		b.remark(p.Warnings)
	}
	if err := b.policy.check(b.allStages()); err != nil {
		return nil, err
	}
	if err := b.opts.Check(b.platforms()); err != nil {
		return nil, err
	}
	if err := b.policy.prepare(ctx, b.allStages()); err != nil {
		return nil, err
	}
	caller := ctx
	ctx = b.gather(ctx)
	if b.plan.Strict {
		if err := b.approve(ctx); err != nil {
			return nil, errors.Join(err, b.group.Wait())
		}
	}
	if b.exporter, err = b.newExporter(ctx); err != nil {
		return nil, errors.Join(err, b.group.Wait())
	}
	b.caches = b.newCaches()
	b.group.Go(func() error { return b.caches.Import(ctx) })
	stages := newStages(b)
	stages.begin(ctx)
	b.group.Go(func() error {
		var targets []*state
		for _, p := range b.plans {
			st, err := stages.last(ctx, p.Target())
			if err != nil {
				return err
			}
			targets = append(targets, st)
		}
		var err error
		result, err = b.deliver(ctx, targets)
		return err
	})
	if err := b.group.Wait(); err != nil {
		err = b.stopwatch.blame(caller, ctx, err)
		b.missing = b.caches.LostLayer(caller, err)
		return nil, err
	}
	result.Cache = b.explained.Cases()
	return result, nil
}

// allStages returns the stages of all plans.
func (b *build) allStages() []*dockerfile.Stage {
	var all []*dockerfile.Stage
	for _, p := range b.plans {
		all = append(all, p.Stages...)
	}
	return all
}

// gather gives the build the group of its goroutines, and returns the context that
// the first error of one ends. That is no fault of what was under way; neither is the
// error of a step, which is told with its place.
func (b *build) gather(ctx context.Context) context.Context {
	b.group, b.life = errgroup.WithContext(ctx)
	life := b.life
	b.progress.Excuse(func(err error) bool {
		_, placed := errors.AsType[*StepError](err)
		return placed || endedBy(life, err)
	})
	return life
}

// created returns the time that the history has of f.
func (b *build) created(f *finding) *time.Time {
	if b.plan.Epoch != nil {
		return b.plan.Epoch
	}
	return &f.Created
}
