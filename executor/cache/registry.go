package cache

import (
	"context"

	"github.com/bobbuild/bob/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registered is a reference in a registry.
type registered struct {
	caches *Caches
	ref    string
}

func (r *registered) load(ctx context.Context, p ocispec.Platform) (*registry.Image, error) {
	return r.caches.o.Registry.ResolveArtifact(ctx, r.ref, p, ConfigType)
}

func (r *registered) save(ctx context.Context, m *manifest) error {
	e := r.caches.o.Exporter
	target, err := e.Target(ctx, r.ref)
	if err != nil {
		return err
	}
	config, body, err := m.documents()
	if err != nil {
		return err
	}
	return e.Push(ctx, target, m.blobs, config, body)
}
