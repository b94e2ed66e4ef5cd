package executor

import (
	"context"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/registry/archive"
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

// remote reports whether the context has to be fetched and isn't an image.
func (c *Context) remote() bool { return c.Repository != nil || c.URL != "" }

// fetch fetches a remote context.
func (c *Context) fetch(ctx context.Context, sources *source.Sources) (*source.Fetched, error) {
	if c.Repository != nil {
		return fetchSource(ctx, sources, c.Repository)
	}
	return fetchSource(ctx, sources, &dockerfile.Download{URL: c.URL, Name: dockerfile.ContextFileName})
}

// history returns what BuildKit writes into the history for a layer made of the
// context.
func (c *Context) history(name string) string {
	switch {
	case c.Repository != nil:
		return "git snapshot for " + fetch.Redact(c.Repository.Remote) + "#" + c.Repository.Ref
	case c.URL != "":
		return "http url " + fetch.Redact(c.URL)
	}
	return "local source for " + name
}

// fetchSource fetches a remote source.
func fetchSource(ctx context.Context, s *source.Sources, src dockerfile.Source) (*source.Fetched, error) {
	switch src := src.(type) {
	case *dockerfile.Download:
		return s.Download(ctx, fileOf(src))
	case *dockerfile.Repository:
		return s.Repository(ctx, fetch.Repository(*src))
	default:
		return nil, fmt.Errorf("a %T can't be fetched", src)
	}
}

func fileOf(d *dockerfile.Download) fetch.File {
	return fetch.File{URL: d.URL, Name: d.Name, Checksum: d.Checksum}
}
