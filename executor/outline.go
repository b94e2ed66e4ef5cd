package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/snapshot"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// outlines are the outlines of the stages of a build.
type outlines struct {
	*build

	origins *origins
	all     memo.Map[*dockerfile.Stage, *outline]
}

// An outline is a stage before any of its steps is done.
type outline struct {
	base     *state           // nil if that is a stage
	platform ocispec.Platform // of the image at the bottom
	steps    []dockerfile.Step
	image    dockerspec.DockerOCIImage // before the steps
}

// of returns the outline of s.
func (a *outlines) of(ctx context.Context, s *dockerfile.Stage) (*outline, error) {
	return a.all.Get(ctx, s, func(ctx context.Context) (o *outline, err error) {
		o = &outline{}
		if s.Base.Stage != nil {
			_, err = a.of(ctx, s.Base.Stage)
		} else {
			o.base, err = a.base(ctx, s)
		}
		if err != nil {
			return nil, err
		}
		root, err := a.linter.config(ctx, s)
		if err != nil {
			return nil, err
		}
		if err := a.lint(s, root); err != nil {
			return nil, err
		}
		o.platform = root.Platform
		o.steps, o.image, err = s.Steps(root)
		return o, err
	})
}

// lint reports the warnings about s, which starts from an image with this config,
// unless approve has reported them. No step waits for the images that s takes files
// from.
func (a *outlines) lint(s *dockerfile.Stage, config dockerspec.DockerOCIImage) error {
	if a.plan.Strict {
		return nil
	}
	warnings, err := s.Lint(config)
	remark(a.progress, warnings)
	if err != nil {
		return err
	}
	images, err := s.SourceImages(config)
	for _, img := range images { // all at the same time
		a.group.Go(func() error {
			_, _ = a.sources.Image(a.life, img.Reference, s.TargetPlatform()) // the step fails with the same error
			return nil
		})
	}
	a.group.Go(func() error {
		warnings, _ := a.linter.lintImages(a.life, s, images)
		remark(a.progress, warnings)
		return nil
	})
	return err
}

// base returns the state that s starts from. s must not start from another stage.
func (a *outlines) base(ctx context.Context, s *dockerfile.Stage) (*state, error) {
	switch {
	case s.Base.Reference != "":
		st, err := a.origins.image(ctx, s.Base.Reference, s.Platform)
		if err != nil {
			if errors.Is(err, oci.ErrNotFound) {
				err = fmt.Errorf("%w%s", err, s.DidYouMean())
			}
			return nil, &StepError{Step: "FROM " + s.Base.Reference, Location: s.Location, Err: err}
		}
		return st, a.startBase(s, st)
	case s.Base.Context != "":
		st, err := a.contextBase(ctx, s)
		if err != nil {
			return nil, &StepError{Step: "FROM " + s.Base.Context, Location: s.Location, Err: err}
		}
		return st, a.startBase(s, st)
	default:
		return scratch(), nil
	}
}

// startBase sends the layers of st, which s starts from, while the steps run, if they
// are part of the image. A layer without a media type in a format is an error.
func (a *outlines) startBase(s *dockerfile.Stage, st *state) error {
	if !a.exports(s) {
		return nil
	}
	for _, l := range st.layers {
		if err := a.exporter.Check(l); err != nil {
			return &StepError{Step: "FROM " + s.Base.Reference + s.Base.Context, Location: s.Location, Err: err}
		}
		a.exporter.Start(l)
	}
	return nil
}

// contextBase returns the state of FROM a named context. Files become its only layer.
func (a *outlines) contextBase(ctx context.Context, s *dockerfile.Stage) (*state, error) {
	name := s.Base.Context
	c := a.opts.Contexts[name]
	if c.Layout != nil {
		img, err := a.origins.layout(ctx, c.Layout, s.Platform)
		if err != nil {
			return nil, fmt.Errorf("context %q: %w", name, err)
		}
		return img, nil
	}
	o, err := a.origins.named(ctx, name, s.Platform)
	if err != nil {
		return nil, err
	}
	f, err := a.contextFiles(ctx, o, "[context "+name+"] load from "+c.Dir)
	if err != nil {
		return nil, err
	}
	a.noteStep(s, nil, f)
	st := scratch().with(f.Key, f.Layer, f.RootFS, ocispec.History{})
	// No instruction made the layer, so BuildKit finds no history entry for it.
	st.missing = &ocispec.History{Created: a.created(f), CreatedBy: c.history(name), Comment: "buildkit.exporter.image.v0"}
	return st, nil
}

// contextFiles returns the files of o as a result. Fetched files are a result already;
// a directory is copied under the title.
func (a *outlines) contextFiles(ctx context.Context, o *origin, title string) (*finding, error) {
	if o.rootfs != nil {
		fetched := &operation{key: recipe.Key("fetched context", o.key.String())}
		if f := a.results.recall(ctx, new(source.RootFS), fetched); f != nil {
			return f, nil
		}
		snap, err := o.rootfs.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		return a.results.record(ctx, new(source.RootFS), fetched, snap)
	}
	src, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	selection, err := src.Select(ctx, filecopy.Source{Path: "."})
	if err != nil {
		return nil, err
	}
	content, err := selection.Digest(ctx)
	if err != nil {
		return nil, err
	}
	op := &operation{
		key: recipe.Key("context", content.String()),
		run: func(ctx context.Context, to *snapshot.Active, _ *event.Vertex) error {
			return selection.CopyTo(ctx, to.Root(), "/", filecopy.Options{Owner: &filecopy.Owner{}, Owners: a.Store.Owners()})
		},
	}
	return a.results.find(ctx, new(source.RootFS), request{operation: op, title: title, before: func(context.Context) error { return nil }})
}
