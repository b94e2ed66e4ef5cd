package cache

import (
	"context"

	"github.com/bobbuild/bob/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registered is a reference in a registry.
type registered struct {
	client *registry.Client
	ref    string
}

func (r *registered) load(ctx context.Context, p ocispec.Platform) (*registry.Image, error) {
	return r.client.ResolveArtifact(ctx, r.ref, p, ConfigType)
}

func (r *registered) save(ctx context.Context, m *manifest) error {
	target, err := m.exporter.Target(ctx, r.ref)
	if err != nil {
		return err
	}
	config, body, err := m.documents()
	if err != nil {
		return err
	}
	return m.exporter.Push(ctx, target, m.blobs, config, body)
}
