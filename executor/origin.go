package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/source"
	"github.com/opencontainers/go-digest"
)

// An origin is what a From names, before anything of it is read.
type origin struct {
	// key identifies all of its files, "" where that is known only by reading
	// them: for directories of this machine.
	key   digest.Digest
	basis basis // of key
	// owners says that files have owners worth keeping.
	owners bool
	open   func(context.Context) (*source.Tree, error)
	// rootfs holds all of its files; nil for directories of this machine.
	rootfs *rootfs
	// noteRead is told what was selected of the build context; nil for others.
	noteRead func(filecopy.Source, digest.Digest)
}

// origin returns what from names for a step of s that comes after st. It waits for a
// stage to be built, or for its forecast if st is one. It makes no file present.
func (b *build) origin(ctx context.Context, st *state, from dockerfile.From, s *dockerfile.Stage) (*origin, error) {
	switch {
	case from.Scratch:
		return b.stateOrigin(scratch()), nil
	case from.Stage != nil && st.basis == forecast:
		f, err := b.forecast(ctx, from.Stage)
		if err != nil {
			return nil, err
		}
		return b.forecastOrigin(f, from.Stage), nil
	case from.Stage != nil:
		st, err := b.stage(ctx, from.Stage)
		if err != nil {
			return nil, err
		}
		return b.stateOrigin(st), nil
	case from.Image != "":
		img, err := b.image(ctx, from.Image, s.TargetPlatform())
		if err != nil {
			return nil, err
		}
		return b.stateOrigin(img), nil
	case from.Context != "":
		return b.contextOrigin(ctx, from.Context, s)
	default:
		return &origin{open: b.openContext, noteRead: b.noteRead}, nil
	}
}

func (b *build) stateOrigin(st *state) *origin {
	return &origin{key: st.key, basis: st.basis, owners: true, rootfs: st.rootfs, open: b.viewOf(st.rootfs)}
}

// viewOf returns a function that opens the files of r.
func (b *build) viewOf(r *rootfs) func(context.Context) (*source.Tree, error) {
	return func(ctx context.Context) (*source.Tree, error) { return b.sources.View(ctx, r.RootFS) }
}

// contextOrigin returns the files of the named context called name.
func (b *build) contextOrigin(ctx context.Context, name string, s *dockerfile.Stage) (*origin, error) {
	c, ok := b.opts.Contexts[name]
	if !ok {
		return nil, fmt.Errorf("no context is called %q", name)
	}
	if c.Layout != nil {
		img, err := b.layout(ctx, c.Layout, s.TargetPlatform())
		if err != nil {
			return nil, fmt.Errorf("context %q: %w", name, err)
		}
		return b.stateOrigin(img), nil
	}
	if c.Repository != nil || c.URL != "" {
		f, err := b.fetchContext(ctx, &c)
		if err != nil {
			return nil, fmt.Errorf("context %q: %w", name, err)
		}
		files := &rootfs{RootFS: f.RootFS}
		return &origin{key: f.Key, rootfs: files, open: b.viewOf(files)}, nil
	}
	return &origin{open: func(ctx context.Context) (*source.Tree, error) { return b.sources.Directory(ctx, c.Dir, c.Ignore) }}, nil
}

// fetchContext gets a context that lies elsewhere.
func (b *build) fetchContext(ctx context.Context, c *Context) (*source.Fetched, error) {
	if c.Repository != nil {
		return fetchSource(ctx, b.sources, c.Repository)
	}
	return fetchSource(ctx, b.sources, &dockerfile.Download{URL: c.URL, Name: dockerfile.ContextFileName})
}

// openContext opens the build context, once for the build.
func (b *build) openContext(ctx context.Context) (*source.Tree, error) {
	if b.opts.Context == "" {
		return nil, errors.New("there is no build context: name a directory as the last argument of bob build")
	}
	return b.sources.Directory(ctx, b.opts.Context, b.opts.Ignore)
}
