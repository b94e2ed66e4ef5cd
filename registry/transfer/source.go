package transfer

import (
	"context"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/oci"
)

// source is where a copy comes from.
type source struct {
	oci.Keeper

	root  *oci.Document
	ref   string // at a registry, to mount from; "" elsewhere
	close func() error
	// dockerManifest is the manifest.json of a docker archive, whose root is made up.
	dockerManifest []byte
}

// open reaches what is at p. The caller closes the source.
func open(ctx context.Context, c *registry.Client, p *place, o archive.Options) (*source, error) {
	if !p.atRegistry() {
		r, err := archive.Open(ctx, p.file, o)
		if err != nil {
			return nil, err
		}
		return &source{Keeper: r, root: r.Root, close: r.Close, dockerManifest: r.DockerManifest}, nil
	}
	ref := reference.String(p.ref)
	from, err := c.Source(ref)
	if err != nil {
		return nil, err
	}
	root, err := from.Root(ctx)
	if err != nil {
		return nil, err
	}
	return &source{Keeper: from, root: root, ref: ref, close: func() error { return nil }}, nil
}
