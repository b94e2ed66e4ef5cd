package executor

import (
	"context"
	"fmt"

	"github.com/bobbuild/bob/executor/recipe"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Context is a named context that is no image of a registry. Exactly one of
// Dir, Repository, URL and Layout is set.
type Context struct {
	Dir        string                 // a directory of this machine
	Ignore     []string               // patterns of its .dockerignore, in their order
	Repository *dockerfile.Repository // a tree of a git repository
	URL        string                 // a file, which is called "context"
	Layout     *archive.LayoutImage   // an image in an OCI image layout
}

// contextBase returns the state of FROM a named context. Files that are no image
// become its one layer.
func (b *build) contextBase(ctx context.Context, s *dockerfile.Stage) (*state, error) {
	name := s.Base.Context
	c := b.opts.Contexts[name]
	if c.Layout != nil {
		img, err := b.layout(ctx, c.Layout, s.Platform)
		if err != nil {
			return nil, fmt.Errorf("context %q: %w", name, err)
		}
		return img, nil
	}
	o, err := b.contextOrigin(ctx, name, s)
	if err != nil {
		return nil, err
	}
	f, err := b.contextFiles(ctx, o, "[context "+name+"] load from "+c.Dir)
	if err != nil {
		return nil, err
	}
	b.noteStep(s, nil, f)
	st := scratch().with(f.key, f.layer, f.rootfs, ocispec.History{})
	// No instruction made the layer, so that BuildKit finds no entry for it.
	st.missing = &ocispec.History{Created: b.created(f), CreatedBy: c.history(name), Comment: "buildkit.exporter.image.v0"}
	return st, nil
}

// contextFiles returns the files of o as a result: what was fetched is one
// already, a directory is copied under the title.
func (b *build) contextFiles(ctx context.Context, o *origin, title string) (*finding, error) {
	if o.rootfs != nil {
		key := recipe.Key("fetched context", o.key.String())
		if f := b.results.recall(ctx, emptyRootFS(), key); f != nil {
			return f, nil
		}
		snap, err := o.rootfs.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		return b.results.record(key, snap)
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
		key:    recipe.Key("context", content.String()),
		before: func(context.Context) error { return nil },
		run: func(ctx context.Context, to *snapshot.Active, _ *event.Vertex) error {
			return selection.CopyTo(ctx, to.Root(), "/", filecopy.Options{Owner: &filecopy.Owner{}, Owners: b.Store.Owners()})
		},
	}
	return b.results.find(ctx, emptyRootFS(), op, title)
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
