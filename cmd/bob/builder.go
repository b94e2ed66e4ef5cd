package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/input"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/binfmt"
	"github.com/bobbuild/bob/executor/cgroup"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/progress"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
)

// enterAndBuild enters the namespaces that the build needs, and builds.
func (cfg *buildConfig) enterAndBuild(ctx context.Context, in *input.Input, o *options, mode progress.Mode) (*executor.Result, error) {
	cache, err := cacheDir(cfg.cache.dir)
	if err != nil {
		return nil, err
	}
	if err := outsideCache(in, o, cache); err != nil {
		return nil, err
	}
	m, err := cfg.isolation.enter(cache)
	if err != nil {
		return nil, err
	}
	stop, err := cfg.profile.start()
	if err != nil {
		return nil, err
	}
	view, err := newView(mode, cfg.stderr)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	if cfg.run.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, cfg.run.timeout, &executor.TimeoutError{Flag: "--timeout", Limit: cfg.run.timeout})
		defer cancel()
	}
	result, err := cfg.build(ctx, in, o, cache, m, view)
	return result, errors.Join(overdue(ctx, err), view.Close(), stop())
}

// outsideCache refuses a context that is the cache directory or lies in it: the build
// would write to what it reads, and its image would hold other builds.
func outsideCache(in *input.Input, o *options, cache string) error {
	if err := in.Outside(cache); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(o.build.Contexts)) {
		if dir := o.build.Contexts[name].Dir; dir != "" {
			if err := input.Outside(dir, cache); err != nil {
				return cli.About("build-context", "", cli.Errorf("--build-context %s=%s: %v", name, dir, err))
			}
		}
	}
	return nil
}

// overdue adds --timeout to err as the reason, if the timeout ended ctx.
func overdue(ctx context.Context, err error) error {
	late, ok := errors.AsType[*executor.TimeoutError](context.Cause(ctx))
	if !ok || err == nil || errors.Is(err, late) {
		return err
	}
	return fmt.Errorf("%w: %w", late, err)
}

// build runs the build in the namespaces that it needs.
func (cfg *buildConfig) build(ctx context.Context, in *input.Input, o *options, cache string, m *machine, view progress.View) (result *executor.Result, err error) {
	m.store.MaxUnpacked = o.build.MaxUnpacked
	store, err := snapshot.Open(cache, m.store)
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, store.Close())
		cfg.cache.syncLater(cache)
	}()
	limiter, err := cgroup.NewLimiter(o.limits)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, limiter.Close()) }()
	runner := &sandbox.Runner{
		Dir: filepath.Join(store.TempDir(), "sandbox"), Mode: *m.mode, Devices: store.Owners(),
		Limiter: limiter, Copy: filecopy.Clone, Notice: warnIn(view),
	}
	emulators := &binfmt.Emulators{Dir: store.TempDir(), Mode: m.mode, Paths: o.emulators}
	defer func() { err = errors.Join(err, emulators.Close()) }()
	cfg.registries.options.Documents = store
	builder := &executor.Builder{
		Store:    store,
		Registry: cfg.registries.client(warnIn(view)),
		Runner:   runner,
		NoRUN:    m.noRUN(),
		Emulate:  emulators.Prepare,
		Fetch:    cfg.fetcher(store.TempDir(), &o.build, warnIn(view)),
		Progress: view.Event,
	}
	src, err := in.Open(ctx, store.TempDir(), builder.Open)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if o.plan.Ignore = src.Ignore; o.fingerprint {
		o.build.Fingerprint = src.Dockerfile.Fingerprint(o.plan)
	}
	if o.plan.SourceEpoch, err = epoch(ctx, in, src.Dockerfile, o, builder); err != nil {
		return nil, err
	}
	plans, err := o.plans(src.Dockerfile)
	if err != nil {
		return nil, err
	}
	o.build.Context, o.build.Ignore = src.Context, src.Ignore
	if builder.NoRUN == nil { // a plan without RUN needs no sandbox
		for _, text := range m.notices {
			warnIn(view)(text)
		}
		limits, err := runner.Limits()
		if err != nil {
			return nil, err
		}
		for _, l := range limits {
			warnIn(view)(l.Error())
		}
	}
	result, err = builder.Build(ctx, plans, o.build)
	if pruneErr := o.trim(ctx, store, cache); pruneErr != nil && ctx.Err() == nil {
		warnIn(view)(pruneErr.Error())
	}
	return result, err
}

// fetcher fetches what Dockerfile and command line name by address, with the
// secrets and the SSH agent that the build was given.
func (cfg *buildConfig) fetcher(temp string, b *executor.Options, notice func(string)) *fetch.Client {
	o := fetch.Options{
		Patience: cfg.registries.options.Patience, Notice: notice,
		UserAgent: "bob/" + version, TempDir: temp, MaxSize: b.MaxUnpacked, CABundle: b.CABundle, KnownHosts: []string{"/etc/ssh/ssh_known_hosts"},
		Secret: func(ctx context.Context, id string) ([]byte, bool) {
			secret, ok := b.Secrets[id]
			if !ok {
				return nil, false
			}
			data, err := secret.Read(ctx)
			return data, err == nil
		},
	}
	if agent := b.SSH["default"]; agent != nil {
		o.Agent = agent.Dial
	}
	if home, err := os.UserHomeDir(); err == nil {
		o.KnownHosts = append(o.KnownHosts, filepath.Join(home, ".ssh", "known_hosts"))
	}
	return fetch.New(o)
}

// epoch returns the time of the source that SOURCE_DATE_EPOCH names. It returns nil if
// the variable names no source, and the zero time for a directory.
func epoch(ctx context.Context, in *input.Input, file *dockerfile.File, o *options, b *executor.Builder) (*time.Time, error) {
	named, err := file.EpochSource(o.plan)
	if named == nil || err != nil {
		return nil, err
	}
	src := named.Source
	if named.Context == "context" {
		src = in.Remote
	} else if c, ok := o.build.Contexts[named.Context]; ok && c.Repository != nil {
		src = c.Repository
	} else if ok && c.URL != "" {
		src = &dockerfile.Download{URL: c.URL, Name: dockerfile.ContextFileName}
	}
	if src == nil {
		return &time.Time{}, nil
	}
	t, err := b.Time(ctx, src)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return &t, nil
}
