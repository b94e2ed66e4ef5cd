package executor

import (
	"context"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Context is a named context that is no image of a registry. Exactly one of
// Dir, Repository, URL and Layout is set.
type Context struct {
	Dir        string                 // a directory of this machine
	Ignore     []string               // patterns of its .dockerignore, in their order
	Repository *dockerfile.Repository // a tree of a git repository
	URL        string                 // a file, which is called "context"
	Layout     *registry.LayoutImage  // an image in an OCI image layout
}

// layout returns the promise of the image l for p.
func (b *build) layout(ctx context.Context, l *registry.LayoutImage, p ocispec.Platform) *promise[*baseImage] {
	return b.imageOf(l.String(), p, func() (*registry.Image, error) { return registry.ResolveLayout(ctx, *l, p) })
}

// contextBase returns the state of FROM a named context. Files that are no image
// become its one layer.
func (b *build) contextBase(ctx context.Context, s *dockerfile.Stage) (*state, error) {
	name := s.Base.Context
	c := b.opts.Contexts[name]
	if c.Layout != nil {
		img, err := b.layout(ctx, c.Layout, s.Platform).wait(ctx)
		if err != nil {
			return nil, fmt.Errorf("context %q: %w", name, err)
		}
		return img.state, nil
	}
	o, err := b.contextOrigin(ctx, name, s)
	if err != nil {
		return nil, err
	}
	src, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	selection, err := src.tree.Select(ctx, filecopy.Source{Path: "."})
	if err != nil {
		return nil, err
	}
	content, err := selection.Digest(ctx)
	if err != nil {
		return nil, err
	}
	op := &operation{
		key: newKey("context").str(content.String()).sum(),
		run: func(ctx context.Context, root string, _ *vertex) error {
			return selection.CopyTo(ctx, root, "/", filecopy.Options{Owner: &filecopy.Owner{}})
		},
	}
	f := b.lookup(op.key)
	if f == nil {
		if f, err = b.make(ctx, nil, op, "[context "+name+"] "+c.describe()); err != nil {
			return nil, err
		}
	}
	st := scratch().with(f.key, newLayer(f.snap), &rootfs{snap: f.snap}, ocispec.History{})
	// No instruction made the layer, so that BuildKit finds no entry for it.
	st.missing = &ocispec.History{Created: b.created(f), CreatedBy: c.history(name), Comment: "buildkit.exporter.image.v0"}
	return st, nil
}

func (c *Context) describe() string {
	switch {
	case c.Repository != nil:
		return "load git source " + fetch.Redact(c.Repository.Remote)
	case c.URL != "":
		return fetch.Redact(c.URL)
	}
	return "load from " + c.Dir
}

// history returns what BuildKit's history says of a layer made of the context.
func (c *Context) history(name string) string {
	switch {
	case c.Repository != nil:
		return "git snapshot for " + fetch.Redact(c.Repository.Remote) + "#" + c.Repository.Ref
	case c.URL != "":
		return "http url " + fetch.Redact(c.URL)
	}
	return "local source for " + name
}
