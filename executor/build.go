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

// A build is one attempt of Build: everything that its stages share.
type build struct {
	*Builder
	plan  *dockerfile.Plan // the first of plans, for what they have in common
	plans plans
	opts  Options

	group     *errgroup.Group // all goroutines of the build; its first error is the build's
	life      context.Context //nolint:containedctx // of group: what is made for all outlives the step that asked first
	progress  *event.Reporter
	stopwatch *stopwatch
	policy    policy
	sources   *source.Sources
	linter    linter
	exporter  *image.Exporter
	caches    *cache.Caches
	explained *explain.Log
	results   *results
	commands  *command.Commands
	inResult  map[*dockerfile.Stage]bool // stages whose layers are part of the result
	reads     inputs.Reads               // of the build context
}

// newBuild returns a build, with its warnings reported. It refuses a strict plan with
// warnings. The layers lost are layers of caches that can't be fetched. The caller waits
// for the group of the build and then closes its sources.
func (b *Builder) newBuild(ctx context.Context, all plans, o Options, progress *event.Reporter, lost []digest.Digest) (_ *build, err error) {
	group, life := errgroup.WithContext(ctx)
	// The end of the build is not a failure of what was under way. The error of a step
	// is reported with its place.
	progress.Excuse(func(err error) bool {
		_, placed := errors.AsType[*StepError](err)
		return placed || endedBy(life, err)
	})
	watch := &stopwatch{limit: o.StepTimeout}
	sources := source.New(source.Options{
		Registry: b.Registry, Store: b.Store, Fetch: b.Fetch, Progress: progress,
		Jobs: o.copiesAtOnce(), Platforms: len(all) > 1, LeaveOut: o.LeaveOut, Limit: watch.bounded,
	})
	defer func() {
		if err != nil {
			err = errors.Join(err, group.Wait(), sources.Close())
		}
	}()
	l := linter{sources: sources, contexts: o.Contexts}
	if err := l.approve(life, all, progress); err != nil {
		return nil, err
	}
	exporter := image.New(image.Options{
		Destinations: o.destinations(),
		Store:        b.Store, Registry: b.Registry, Progress: progress,
		Epoch: all[0].Epoch, MaxUnpacked: o.MaxUnpacked,
		Go: func(f func(context.Context) error) { group.Go(func() error { return f(life) }) },
	})
	caches := cache.New(cache.Options{
		Sources: o.cachesRead(), Targets: o.CacheTo,
		Store: b.Store, Registry: b.Registry, Exporter: exporter, Progress: progress,
		Platforms: all.platforms(), Epoch: all[0].Epoch, Jobs: o.copiesAtOnce(), MaxUnpacked: o.MaxUnpacked,
		Lost: lost,
	})
	commands := command.New(command.Options{
		Runner: b.Runner, Store: b.Store, Progress: progress, Imported: importedMounts(caches),
		Network: o.Network, ExtraHosts: o.ExtraHosts, ShmSize: o.ShmSize, Ulimits: o.Ulimits,
		Secrets: o.Secrets, SSH: o.SSH, CABundle: o.CABundle,
	})
	explained := explain.NewLog(o.ExplainCache)
	return &build{
		Builder: b, plan: all[0], plans: all, opts: o, policy: newPolicy(b, &o),
		group: group, life: life, progress: progress, stopwatch: watch,
		sources: sources, linter: l, exporter: exporter, caches: caches, commands: commands, explained: explained,
		results: &results{
			store: b.Store, clock: b.Clock, progress: progress, stopwatch: watch, caches: caches, explained: explained,
			jobs: semaphore.NewWeighted(int64(o.Jobs)), copies: semaphore.NewWeighted(int64(o.copiesAtOnce())),
			noCache: o.NoCache, layers: make(map[string]*image.Layer),
		},
		inResult: all.inResult(),
	}, nil
}

// created returns the time of f for the image's history.
func (b *build) created(f *finding) *time.Time {
	if b.plan.Epoch != nil {
		return b.plan.Epoch
	}
	return &f.Created
}

// importedMounts returns a function that finds cache mounts in imported caches, by their
// keys. It returns nil if no cache has the mount.
func importedMounts(caches *cache.Caches) func(context.Context, digest.Digest) *command.Imported {
	return func(ctx context.Context, key digest.Digest) *command.Imported {
		m := caches.Mount(ctx, key)
		if m == nil {
			return nil
		}
		return &command.Imported{ID: m.ID, Unpack: func(ctx context.Context, dir string) (dockerfile.MountOwner, error) {
			owner, err := caches.Unpack(ctx, dir, m)
			return dockerfile.MountOwner(owner), err
		}}
	}
}
