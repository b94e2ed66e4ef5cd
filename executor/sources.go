package executor

import (
	"context"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
)

// A scout looks, before any step is run, for what steps take from directories of this
// machine: that something isn't there depends on nothing else. Whatever it misses shows
// at the step itself.
type scout struct{ b *build }

// look goes through the steps of all stages, as soon as the configs of their bases are
// known. The error is a [*StepError], and told.
func (s scout) look(ctx context.Context) error {
	for _, stage := range s.b.allStages() {
		o, err := s.b.outline(stage).wait(ctx)
		if err != nil {
			return err
		}
		n := s.b.counter(stage, o.steps)
		if stage.Base.Reference != "" {
			n.next() // the FROM
		}
		for _, step := range o.steps {
			if step.Op == nil {
				continue
			}
			title := task{Step: step, number: n.next()}.title()
			if err := s.step(ctx, stage, step.Op); err != nil {
				if !s.b.progress.canceled(err) {
					s.b.progress.start(title).done(err)
				}
				return locate(err, step)
			}
		}
	}
	return nil
}

// step looks for what op, of a step of stage, takes.
func (s scout) step(ctx context.Context, stage *dockerfile.Stage, op dockerfile.Op) error {
	switch op := op.(type) {
	case *dockerfile.Copy:
		for _, src := range op.Sources {
			if src, ok := src.(*dockerfile.Path); ok {
				if _, err := s.find(ctx, stage, op.From, (&pathPart{Path: src, copying: &copying{Copy: op}}).source()); err != nil {
					return err
				}
			}
		}
	case *dockerfile.Run:
		for _, m := range op.Mounts {
			if m, ok := m.(*dockerfile.BindMount); ok {
				there, err := s.find(ctx, stage, m.From, mountedPath(m.Source))
				if err == nil && !there {
					err = &filecopy.NotFoundError{Source: m.Source}
				}
				if err != nil {
					return fmt.Errorf("mount on %s: %w", m.Target, err)
				}
			}
		}
	case *dockerfile.Workdir:
	}
	return nil
}

// find looks for src in from. What is no directory of this machine has everything.
func (s scout) find(ctx context.Context, stage *dockerfile.Stage, from dockerfile.From, src filecopy.Source) (there bool, err error) {
	if from != (dockerfile.From{}) && s.b.opts.Contexts[from.Context].Dir == "" {
		return true, nil
	}
	o, err := s.b.origin(ctx, scratch(), from, stage)
	if err != nil {
		return false, err
	}
	files, err := o.open(ctx)
	if err != nil {
		return false, err
	}
	return files.tree.Find(ctx, src)
}
