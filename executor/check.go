package executor

import (
	"context"
	"slices"

	"github.com/bobbuild/bob/dockerfile"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Check returns every warning about plan, in the order of its stages. For that
// it resolves the base images; nothing is fetched, run, stored or pushed, and of
// the Builder only Registry, Clock and Progress are used. With an error it
// returns the warnings found before.
func (b *Builder) Check(ctx context.Context, plan *dockerfile.Plan) ([]dockerfile.Warning, error) {
	bd, err := newBuild(b, []*dockerfile.Plan{plan}, Options{})
	if err != nil {
		return nil, err
	}
	ctx = bd.gather(ctx)
	warnings, err := bd.check(ctx)
	if waited := bd.group.Wait(); err == nil {
		err = waited
	}
	return append(slices.Clip(plan.Warnings), warnings...), err
}

// check returns the warnings about the instructions of all stages in the plan, and
// about the images they name. All are resolved before any stage is looked at.
func (b *build) check(ctx context.Context) ([]dockerfile.Warning, error) {
	stages := b.allStages()
	for _, s := range stages {
		if s.Base.Reference != "" {
			b.ask(s.Base.Reference, s.Platform)
		}
	}
	sources := make([][]dockerfile.SourceImage, len(stages))
	for i, s := range stages {
		config, err := b.rootConfig(ctx, s)
		if err != nil {
			root := s.Root()
			return nil, &StepError{Step: "FROM " + root.Base.Reference, Location: root.Location, Err: err}
		}
		sources[i], _ = b.sourceImages(s, config) // the error is that of Lint
	}
	var warnings []dockerfile.Warning
	for i, s := range stages {
		more, err := b.lintSources(ctx, s, sources[i])
		warnings = append(warnings, more...)
		if err != nil {
			return warnings, err
		}
	}
	for _, s := range stages {
		config, err := b.rootConfig(ctx, s)
		if err != nil {
			return warnings, err
		}
		more, err := s.Lint(config)
		warnings = append(warnings, more...)
		if err != nil {
			return warnings, err
		}
	}
	return warnings, nil
}

// sourceImages returns the images that s takes files from, and has all of them
// resolved.
func (b *build) sourceImages(s *dockerfile.Stage, root dockerspec.DockerOCIImage) ([]dockerfile.SourceImage, error) {
	sources, err := s.SourceImages(root)
	for _, src := range sources {
		b.ask(src.Reference, s.TargetPlatform())
	}
	return sources, err
}

// lintSources returns the warnings about images that s takes files from.
func (b *build) lintSources(ctx context.Context, s *dockerfile.Stage, sources []dockerfile.SourceImage) ([]dockerfile.Warning, error) {
	var warnings []dockerfile.Warning
	for _, src := range sources {
		img, err := b.image(ctx, src.Reference, s.TargetPlatform())
		if err != nil {
			return warnings, &StepError{Step: src.Text, Location: src.Location, Err: err}
		}
		warnings = append(warnings, src.Lint(img.state.image)...)
	}
	return warnings, nil
}

// approve tells of all warnings before anything is run, and returns the error
// that a strict plan makes of them.
func (b *build) approve(ctx context.Context) error {
	warnings, err := b.check(ctx)
	b.remark(warnings)
	if err != nil {
		return err
	}
	return dockerfile.Violations(append(warnings, b.plan.Warnings...))
}

// lint tells of the warnings about s, unless approve has.
func (b *build) lint(ctx context.Context, s *dockerfile.Stage) error {
	if b.plan.Strict {
		return nil
	}
	root, err := b.rootConfig(ctx, s)
	if err != nil {
		return err
	}
	warnings, err := s.Lint(root)
	b.remark(warnings)
	if err != nil {
		return err
	}
	sources, err := b.sourceImages(s, root)
	if err != nil {
		return err
	}
	b.group.Go(func() error { // no step waits for it
		warnings, _ := b.lintSources(b.life, s, sources) // the error is that of a step
		b.remark(warnings)
		return nil
	})
	return nil
}

func (b *build) remark(warnings []dockerfile.Warning) {
	for _, w := range warnings {
		b.progress.Warn(w.String())
	}
}
