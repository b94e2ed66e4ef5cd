package cache

import (
	"context"
	"io"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A directory is an OCI image layout.
type directory struct {
	layout archive.LayoutImage
}

func (d *directory) load(ctx context.Context, p ocispec.Platform) (*registry.Image, error) {
	return d.layout.ResolveArtifact(ctx, p, ConfigType)
}

func (d *directory) save(ctx context.Context, m *manifest) error {
	config, body, err := m.documents()
	if err != nil {
		return err
	}
	return archive.WriteOCIDir(ctx, d.layout.Dir, archive.Contents{
		Refs:   []string{"cache:" + d.layout.Tag},
		Images: []archive.Image{{Manifest: body.Body, MediaType: body.MediaType, Config: config.Body, Layers: m.layers}},
		Open: func(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
			return m.exporter.Open(ctx, m.blobs[m.numbers[desc.Digest]])
		},
	})
}
