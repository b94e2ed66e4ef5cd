package executor

import (
	"context"
	"slices"

	"github.com/bobbuild/bob/dockerfile"
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
	ctx = bd.begin(ctx)
	warnings, err := bd.check(ctx)
	if waited := bd.group.Wait(); err == nil {
		err = waited
	}
	return append(slices.Clip(plan.Warnings), warnings...), err
}

// check returns the warnings about the instructions of all stages in the plan.
// The base images are resolved before any stage is looked at.
func (b *build) check(ctx context.Context) ([]dockerfile.Warning, error) {
	for _, s := range b.allStages() {
		if s.Base.Reference != "" {
			b.image(ctx, s.Base.Reference, s.Platform) // all at the same time
		}
	}
	for _, s := range b.allStages() {
		if _, err := b.rootConfig(ctx, s); err != nil {
			root := s.Root()
			return nil, &StepError{Step: "FROM " + root.Base.Reference, Location: root.Location, Err: err}
		}
	}
	var warnings []dockerfile.Warning
	for _, s := range b.allStages() {
		root, err := b.rootConfig(ctx, s)
		if err != nil {
			return warnings, err
		}
		more, err := s.Lint(root)
		warnings = append(warnings, more...)
		if err != nil {
			return warnings, err
		}
	}
	return warnings, nil
}

// approve tells of all warnings before anything is run, and returns the error
// that a strict plan makes of them.
func (b *build) approve(ctx context.Context) error {
	warnings, err := b.check(ctx)
	b.progress.remark(warnings)
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
	b.progress.remark(warnings)
	return err
}

func (r *reporter) remark(warnings []dockerfile.Warning) {
	for _, w := range warnings {
		r.warn(w.String())
	}
}
