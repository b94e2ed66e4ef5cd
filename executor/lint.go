package executor

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/source"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Check returns every warning about plan, in the order of its stages. For that
// it resolves the base images; nothing is fetched, run, stored or pushed, and of
// the Builder only Registry, Clock and Progress are used. With an error it
// returns the warnings found before.
func (b *Builder) Check(ctx context.Context, plan *dockerfile.Plan) ([]dockerfile.Warning, error) {
	s := b.aside(ctx, b.Progress)
	warnings, err := linter{sources: s}.check(ctx, plan.Stages)
	return append(slices.Clip(plan.Warnings), warnings...), errors.Join(err, s.Close())
}

// A linter finds warnings about the instructions of stages, and about the images that
// they name.
type linter struct {
	sources  *source.Sources
	contexts map[string]Context
}

// config returns the config of the image that the stages below s start from, zero for
// scratch.
func (l linter) config(ctx context.Context, s *dockerfile.Stage) (dockerspec.DockerOCIImage, error) {
	root := s.Root()
	var img *source.Image
	var err error
	switch layout := l.contexts[root.Base.Context].Layout; {
	case layout != nil:
		img, err = l.sources.Layout(ctx, layout, root.Platform)
	case root.Base.Reference != "":
		img, err = l.sources.Image(ctx, root.Base.Reference, root.Platform)
	default:
		return dockerspec.DockerOCIImage{}, nil
	}
	if err != nil {
		return dockerspec.DockerOCIImage{}, err
	}
	return img.Parsed, nil
}

// check returns the warnings about the instructions of all stages, and about the images
// they name. All are resolved before any stage is looked at.
func (l linter) check(ctx context.Context, stages []*dockerfile.Stage) ([]dockerfile.Warning, error) {
	ctx, stop := context.WithCancel(ctx)
	var asked sync.WaitGroup
	defer asked.Wait()
	defer stop()
	ask := func(ref string, p ocispec.Platform) {
		asked.Go(func() { _, _ = l.sources.Image(ctx, ref, p) }) // whoever needs the image gets the error
	}
	for _, s := range stages {
		if s.Base.Reference != "" {
			ask(s.Base.Reference, s.Platform)
		}
	}
	configs := make([]dockerspec.DockerOCIImage, len(stages))
	images := make([][]dockerfile.SourceImage, len(stages))
	for i, s := range stages {
		var err error
		if configs[i], err = l.config(ctx, s); err != nil {
			root := s.Root()
			return nil, &StepError{Step: "FROM " + root.Base.Reference, Location: root.Location, Err: err}
		}
		images[i], _ = s.SourceImages(configs[i]) // Lint returns the same error
		for _, img := range images[i] {
			ask(img.Reference, s.TargetPlatform())
		}
	}
	var warnings []dockerfile.Warning
	for i, s := range stages {
		more, err := l.lintImages(ctx, s, images[i])
		warnings = append(warnings, more...)
		if err != nil {
			return warnings, err
		}
	}
	for i, s := range stages {
		more, err := s.Lint(configs[i])
		warnings = append(warnings, more...)
		if err != nil {
			return warnings, err
		}
	}
	return warnings, nil
}

// lintImages returns the warnings about images that s takes files from.
func (l linter) lintImages(ctx context.Context, s *dockerfile.Stage, images []dockerfile.SourceImage) ([]dockerfile.Warning, error) {
	var warnings []dockerfile.Warning
	for _, named := range images {
		img, err := l.sources.Image(ctx, named.Reference, s.TargetPlatform())
		if err != nil {
			return warnings, &StepError{Step: named.Text, Location: named.Location, Err: err}
		}
		warnings = append(warnings, named.Lint(img.Parsed)...)
	}
	return warnings, nil
}

// approve reports all warnings about strict plans to progress before anything is run,
// and returns an error if there are any. It does nothing for other plans.
func (l linter) approve(ctx context.Context, all plans, progress *event.Reporter) error {
	plan := all[0]
	if !plan.Strict {
		return nil
	}
	warnings, err := l.check(ctx, all.stages())
	remark(progress, warnings)
	if err != nil {
		return err
	}
	return dockerfile.Violations(append(warnings, plan.Warnings...))
}

// remark reports warnings.
func remark(progress *event.Reporter, warnings []dockerfile.Warning) {
	for _, w := range warnings {
		progress.Warn(w.String())
	}
}
