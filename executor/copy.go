package executor

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
)

// aliasKind are records that lead from what a COPY --from names to the content
// it selects, so that a known result needs no file of the source.
const aliasKind = "alias-2"

// copy prepares COPY and ADD. Their key holds the content that is
// copied and not where it came from: a stage that is built anew but turns out
// the same changes nothing behind it.
func (at site) copy(ctx context.Context, op *dockerfile.Copy) (*operation, error) {
	if err := at.after.knows(op.Chown); err != nil {
		return nil, fmt.Errorf("--chown=%s: %w", op.Chown, err)
	}
	c := &copying{Copy: op, warn: at.progress.Warn, owners: at.Store.Owners(), maxUnpacked: at.opts.MaxUnpacked}
	for _, src := range op.Sources {
		p, err := at.part(ctx, c, src)
		if err != nil {
			return nil, err
		}
		c.parts = append(c.parts, p)
	}
	run := c.run
	if op.Link {
		run = linked(at.Store, c.run)
	}
	r := c.shape(at.after.key)
	var alias digest.Digest
	if c.from != nil && c.from.key != "" {
		alias = recipe.Key("copy from", r.Key().String(), c.from.key.String())
		if key, ok := at.alias(ctx, alias); ok && c.from.basis != anew {
			at.caches.Link(alias, key)
			for _, p := range c.parts {
				p.unread(r)
			}
			return &operation{key: key, basis: c.from.basis, run: run, inputs: r.Inputs()}, nil
		}
	}
	if at.after.basis == forecast && c.from != nil && c.from.rootfs != nil {
		return nil, errNoForecast
	}
	for _, p := range c.parts {
		if err := p.content(ctx, r); err != nil {
			return nil, err
		}
	}
	key := r.Key()
	if alias != "" {
		at.caches.Link(alias, key)
		if err := at.Store.PutRecord(aliasKind, alias, []byte(key)); err != nil {
			return nil, err
		}
	}
	return &operation{key: key, run: run, inputs: r.Inputs(), files: c.localFiles()}, nil
}

// part prepares one source of c.
func (at site) part(ctx context.Context, c *copying, src dockerfile.Source) (part, error) {
	switch src := src.(type) {
	case *dockerfile.Path:
		if c.from == nil {
			from, err := at.find(ctx, c.From, at.stage)
			if err != nil {
				return nil, err
			}
			c.from = from
		}
		return &pathPart{Path: src, copying: c}, nil
	case *dockerfile.Inline:
		return &inlinePart{Inline: src, copying: c}, nil
	case *dockerfile.Download:
		// The one file there, whatever it is called.
		return at.fetchedPart(ctx, src, fetchedPart{copying: c, name: fetch.Redact(src.URL), pattern: "*", unpack: src.Unpack})
	case *dockerfile.Repository:
		return at.fetchedPart(ctx, src, fetchedPart{copying: c, name: fetch.Redact(src.Remote), pattern: ".", itself: true})
	default:
		return nil, fmt.Errorf("no source %T", src)
	}
}

// fetchedPart completes p with src, which it fetches.
func (at site) fetchedPart(ctx context.Context, src dockerfile.Source, p fetchedPart) (part, error) {
	f, err := fetchSource(ctx, at.sources, src)
	if err != nil {
		return nil, err
	}
	p.key, p.open = f.Key, viewOf(at.sources, f.RootFS)
	return &p, nil
}

// shape lists everything that the result depends on, except content that must be read.
func (c *copying) shape(parent digest.Digest) *recipe.Recipe {
	r := recipe.New("copy")
	r.Hidden(parent.String(), recipe.Bool(c.from != nil && c.from.owners))
	r.Add("destination", c.Dest)
	r.Add("--chown", c.Chown)
	r.Add("--chmod", c.Chmod)
	r.Add("--exclude", c.Exclude...)
	r.Add("--link", recipe.Bool(c.Link))
	for _, p := range c.parts {
		p.shape(r)
	}
	return r
}

// alias returns a key recorded under a whose result exists. A forecast also accepts a
// key without a result.
func (at site) alias(ctx context.Context, a digest.Digest) (found digest.Digest, ok bool) {
	for key := range at.caches.Linked(ctx, aliasKind, a) {
		if at.results.recallAfter(ctx, at.after, key) != nil {
			return key, true
		}
		found = cmp.Or(found, key)
	}
	return found, at.after.basis == forecast && found != ""
}

// run copies into the file system of the step.
func (c *copying) run(ctx context.Context, to *snapshot.Active, v *event.Vertex) error {
	for _, p := range c.parts {
		if err := p.copyTo(ctx, to, v); err != nil {
			return err
		}
	}
	return nil
}

// linked returns run for --link: it copies into an empty file system, which it then
// lays over the file system of the step. As in BuildKit, the copy doesn't see existing
// files: links in its way become directories, and existing directories get the mode and
// owner of new ones.
func linked(store *snapshot.Store, run func(context.Context, *snapshot.Active, *event.Vertex) error) func(context.Context, *snapshot.Active, *event.Vertex) error {
	return func(ctx context.Context, to *snapshot.Active, v *event.Vertex) (err error) {
		alone, err := store.Prepare(ctx, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, alone.Discard()) }()
		if err := run(ctx, alone, v); err != nil {
			return err
		}
		files, err := snapshot.Archive(ctx, snapshot.Tree{Root: alone.Root(), Owners: store.Owners()}, nil)
		if err != nil {
			return err
		}
		defer files.Close()
		return snapshot.Extract(ctx, to.Root(), "/", files, snapshot.ExtractOptions{Owners: store.Owners(), In: to})
	}
}
