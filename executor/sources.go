package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
)

// A scout looks, before any step is run, for what can't be had: what steps take from
// directories of this machine, since that depends on nothing else, and the files of
// images that aren't read here. Whatever it misses shows at the step itself.
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
			err := s.step(ctx, stage, step.Op)
			if o.platform.OS == "windows" {
				err = errWindows
			}
			if err != nil {
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
		if err := s.readable(ctx, stage, op.From); err != nil {
			return err
		}
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
				if err := s.readable(ctx, stage, m.From); err != nil {
					return err
				}
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

// errWindows is that layers of Windows images, which hold files in a form of their own,
// are neither read nor made.
var errWindows = errors.New("the files of an image for windows can't be read or changed here, only its configuration: copy to FROM scratch, or build on Windows")

// readable refuses files of images for Windows.
func (s scout) readable(ctx context.Context, stage *dockerfile.Stage, from dockerfile.From) error {
	os := ""
	switch {
	case from.Stage != nil:
		o, err := s.b.outline(from.Stage).wait(ctx)
		if err != nil {
			return err
		}
		os = o.platform.OS
	case from.Image != "" && stage.TargetPlatform().OS == "windows":
		img, err := s.b.image(from.Image, stage.TargetPlatform()).wait(ctx)
		if err != nil {
			return err
		}
		os = img.state.image.OS
	}
	if os == "windows" {
		return errWindows
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
