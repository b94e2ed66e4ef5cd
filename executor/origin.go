package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An origin is the source that a From names, before anything of it is read.
type origin struct {
	// key identifies all of its files. It is "" for directories of this machine, whose
	// files must be read first.
	key   digest.Digest
	basis basis // of key
	// owners says that files have owners worth keeping.
	owners bool
	open   func(context.Context) (*source.Tree, error)
	// rootfs holds all of its files; nil for directories of this machine.
	rootfs *source.RootFS
	// noteRead is called with each selection of the build context; nil for other
	// origins.
	noteRead func(filecopy.Source, digest.Digest)
}

// origins find the sources that From and FROM name.
type origins struct {
	sources *source.Sources
	// The build context and its .dockerignore, and the named contexts.
	context  string
	ignore   []string
	contexts map[string]Context
	// built returns the last state of a stage, which is built if it isn't yet.
	built func(context.Context, *dockerfile.Stage) (*state, error)
	// noteRead is called with each selection of the build context.
	noteRead func(filecopy.Source, digest.Digest)

	images memo.Map[*source.Image, *state]
}

// find returns what from names for a step of s. It waits until a stage is built. It
// makes no file present.
func (o *origins) find(ctx context.Context, from dockerfile.From, s *dockerfile.Stage) (*origin, error) {
	switch {
	case from.Scratch:
		return o.of(scratch()), nil
	case from.Stage != nil:
		st, err := o.built(ctx, from.Stage)
		if err != nil {
			return nil, err
		}
		return o.of(st), nil
	case from.Image != "":
		st, err := o.image(ctx, from.Image, s.TargetPlatform())
		if err != nil {
			return nil, err
		}
		return o.of(st), nil
	case from.Context != "":
		return o.named(ctx, from.Context, s.TargetPlatform())
	default:
		return &origin{open: o.openContext, noteRead: o.noteRead}, nil
	}
}

// of returns the files of st.
func (o *origins) of(st *state) *origin {
	return &origin{key: st.key, basis: st.basis, owners: true, rootfs: st.rootfs, open: viewOf(o.sources, st.rootfs)}
}

// viewOf returns a function that opens the files of r.
func viewOf(sources *source.Sources, r *source.RootFS) func(context.Context) (*source.Tree, error) {
	return func(ctx context.Context) (*source.Tree, error) { return sources.View(ctx, r) }
}

// named returns the files of the named context called name, of an image for p if it is one.
func (o *origins) named(ctx context.Context, name string, p ocispec.Platform) (*origin, error) {
	c, ok := o.contexts[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("no context is called %q", name)
	case c.Layout != nil:
		st, err := o.layout(ctx, c.Layout, p)
		if err != nil {
			return nil, fmt.Errorf("context %q: %w", name, err)
		}
		return o.of(st), nil
	case c.remote():
		f, err := c.fetch(ctx, o.sources)
		if err != nil {
			return nil, fmt.Errorf("context %q: %w", name, err)
		}
		return &origin{key: f.Key, rootfs: f.RootFS, open: viewOf(o.sources, f.RootFS)}, nil
	default:
		return &origin{open: func(ctx context.Context) (*source.Tree, error) { return o.sources.Directory(ctx, c.Dir, c.Ignore) }}, nil
	}
}

// openContext opens the build context, once for the build.
func (o *origins) openContext(ctx context.Context) (*source.Tree, error) {
	if o.context == "" {
		return nil, errors.New("there is no build context: name a directory as the last argument of bob build")
	}
	return o.sources.Directory(ctx, o.context, o.ignore)
}

// image returns the state of a stage that is just the image ref for p.
func (o *origins) image(ctx context.Context, ref string, p ocispec.Platform) (*state, error) {
	img, err := o.sources.Image(ctx, ref, p)
	if err != nil {
		return nil, err
	}
	return o.imageState(ctx, img)
}

// layout is image of an image in a directory.
func (o *origins) layout(ctx context.Context, l *archive.LayoutImage, p ocispec.Platform) (*state, error) {
	img, err := o.sources.Layout(ctx, l, p)
	if err != nil {
		return nil, err
	}
	return o.imageState(ctx, img)
}

// imageState returns the state of a stage that is just img. It returns the same state
// each time, so that each layer of it is handled once.
func (o *origins) imageState(ctx context.Context, img *source.Image) (*state, error) {
	return o.images.Get(ctx, img, func(context.Context) (*state, error) {
		st := &state{
			image: img.Parsed, base: img.Parsed.History, history: img.Parsed.History,
			key: recipe.Key("image", img.Chain.String()), rootfs: img.RootFS, from: img.Digest,
		}
		for _, l := range img.Layers {
			st.layers = append(st.layers, image.Based(l, img.Image))
		}
		return st, nil
	})
}
