package executor

import (
	"cmp"
	"context"
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
	over := at.after.key
	if c.Link { // what is made depends on nothing below, though the result does
		over = ""
	}
	r := c.shape(over)
	made := func(content digest.Digest) *operation {
		o := &operation{key: content, run: c.run, inputs: r.Inputs()}
		if c.Link {
			o.key, o.alone = recipe.Key("copy over", at.after.key.String(), content.String()), content
		}
		return o
	}
	var alias digest.Digest
	if c.from != nil && c.from.key != "" {
		alias = recipe.Key("copy from", r.Key().String(), c.from.key.String())
		if content, ok := at.alias(ctx, alias, made); ok && c.from.basis != anew {
			at.caches.Link(alias, content)
			for _, p := range c.parts {
				p.unread(r)
			}
			o := made(content)
			o.basis = c.from.basis
			return o, nil
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
	content := r.Key()
	if alias != "" {
		at.caches.Link(alias, content)
		if err := at.Store.PutRecord(aliasKind, alias, []byte(content)); err != nil {
			return nil, err
		}
	}
	o := made(content)
	o.files = c.localFiles()
	return o, nil
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

// alias returns a key recorded under a, of content for which the operation of made has a
// result. A forecast also accepts a key without a result.
func (at site) alias(ctx context.Context, a digest.Digest, made func(digest.Digest) *operation) (found digest.Digest, ok bool) {
	for key := range at.caches.Linked(ctx, aliasKind, a) {
		if at.results.recallAfter(ctx, at.after, made(key)) != nil {
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
