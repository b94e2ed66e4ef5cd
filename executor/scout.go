package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/filecopy"
)

// A scout looks for missing sources of steps before earlier steps run. It looks in
// directories of this machine, and refuses files of images that bob can't read. A
// remote scout asks for remote files and contexts. A missing source that it doesn't
// find makes the step itself fail.
type scout struct {
	*build

	outlines *outlines
	origins  *origins
	remote   bool
}

// look goes through the steps of all stages, as soon as the configs of their bases are
// known. A remote scout returns before its answers have come, and an error among them
// ends the build. An error is a [*StepError] and has been reported.
func (s scout) look(ctx context.Context) error {
	for _, stage := range s.plans.stages() {
		o, err := s.outlines.of(ctx, stage)
		if err != nil {
			return err
		}
		n := s.plans.counter(stage, o.steps)
		if stage.Base.Reference != "" {
			n.next() // the FROM
		}
		for _, step := range o.steps {
			if step.Op == nil {
				continue
			}
			title := task{Step: step, number: n.next()}.title()
			check := func() error {
				err := s.step(ctx, stage, step.Op)
				if o.platform.OS == "windows" {
					err = errWindows
				}
				if err != nil {
					s.progress.Fail(title, err)
					err = locate(err, step)
				}
				return err
			}
			if s.remote {
				s.group.Go(check)
			} else if err := check(); err != nil {
				return err
			}
		}
	}
	return nil
}

// step looks for the sources of op, which belongs to a step of stage.
func (s scout) step(ctx context.Context, stage *dockerfile.Stage, op dockerfile.Op) error {
	switch op := op.(type) {
	case *dockerfile.Copy:
		if err := s.readable(ctx, stage, op.From); err != nil {
			return err
		}
		for _, src := range op.Sources {
			if err := s.read(ctx, stage, op, src); err != nil {
				return err
			}
		}
	case *dockerfile.Run:
		for _, m := range op.Mounts {
			if m, ok := m.(*dockerfile.BindMount); ok {
				if err := s.readable(ctx, stage, m.From); err != nil {
					return err
				}
				there, err := s.find(ctx, stage, m.From, command.Literal(m.Source))
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

// read looks for one source of op.
func (s scout) read(ctx context.Context, stage *dockerfile.Stage, op *dockerfile.Copy, src dockerfile.Source) (err error) {
	switch src := src.(type) {
	case *dockerfile.Path:
		_, err = s.find(ctx, stage, op.From, (&pathPart{Path: src, copying: &copying{Copy: op}}).source())
	case *dockerfile.Download, *dockerfile.Repository:
		if s.remote {
			_, err = fetchSource(ctx, s.sources, src)
		}
	case *dockerfile.Inline: // is in the Dockerfile
	}
	return err
}

// errWindows refuses layers of Windows images, whose files have a form of their own.
var errWindows = errors.New("the files of an image for windows can't be read or changed here, only its configuration: copy to FROM scratch, or build on Windows")

// readable refuses files of images for Windows.
func (s scout) readable(ctx context.Context, stage *dockerfile.Stage, from dockerfile.From) error {
	os := ""
	switch {
	case s.remote: // the other scout does it
	case from.Stage != nil:
		o, err := s.outlines.of(ctx, from.Stage)
		if err != nil {
			return err
		}
		os = o.platform.OS
	case from.Image != "" && stage.TargetPlatform().OS == "windows":
		img, err := s.sources.Image(ctx, from.Image, stage.TargetPlatform())
		if err != nil {
			return err
		}
		os = img.Parsed.OS
	}
	if os == "windows" {
		return errWindows
	}
	return nil
}

// find looks for src in from. It reports true for places where this scout doesn't look.
func (s scout) find(ctx context.Context, stage *dockerfile.Stage, from dockerfile.From, src filecopy.Source) (there bool, err error) {
	c := s.opts.Contexts[from.Context]
	local, remote := from == (dockerfile.From{}) || c.Dir != "", c.remote()
	if s.remote && !remote || !s.remote && !local {
		return true, nil
	}
	if remote {
		f, err := c.fetch(ctx, s.sources)
		if err != nil {
			return false, fmt.Errorf("context %q: %w", from.Context, err)
		}
		// The store can't have results of a tree that it never had.
		if now, ever := s.sources.Has(f); !now && (ever || len(s.opts.CacheFrom) > 0) && !s.opts.NoCache {
			return true, nil // no step may need the files
		}
	}
	o, err := s.origins.find(ctx, from, stage)
	if err != nil {
		return false, err
	}
	files, err := o.open(ctx)
	if err != nil {
		return false, err
	}
	return files.Find(ctx, src)
}
