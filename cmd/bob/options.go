package main

import (
	"context"
	"errors"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/sandbox"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// options is what the flags ask of the plan and of the build.
type options struct {
	plan      dockerfile.Options // for the first platform
	platforms []ocispec.Platform
	build     executor.Options
	emulators map[string]string // paths by architecture
	limits    sandbox.Limits    // of a RUN
	// fingerprint has the image say what it was built from.
	fingerprint bool
	// limit is what the cache is cut down to after the build, in bytes; 0 means
	// not at all, less than 0 the default.
	limit int64
}

// options applies every flag but those that name what is read. Its error joins all that
// is wrong with them.
func (cfg *buildConfig) options(ctx context.Context) (_ *options, err error) {
	defer func() { err = interrupted(ctx, err) }()
	o := &options{}
	cache, err := cacheDir(cfg.cache.dir)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(
		cfg.plan.apply(ctx, o), cfg.run.apply(o), cfg.secrets.apply(ctx, o), cfg.cache.apply(o, cache), cfg.result.check(),
		cfg.registries.apply(ctx, o), cfg.isolation.check(), cfg.output.Apply(&o.build, cfg.stdout),
	); err != nil {
		return nil, err
	}
	if err := o.build.Check(o.platforms); err != nil {
		return nil, cli.Errorf("%v", err)
	}
	return o, nil
}

// plans returns the plan of f for each platform.
func (o *options) plans(f *dockerfile.File) ([]*dockerfile.Plan, error) {
	var all []*dockerfile.Plan
	for _, p := range o.platforms {
		plan := o.plan
		plan.TargetPlatform = p
		made, err := f.Plan(plan)
		if err != nil {
			return nil, err
		}
		all = append(all, made)
	}
	return all, nil
}
