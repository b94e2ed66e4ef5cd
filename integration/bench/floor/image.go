package main

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An image is what is known of a base.
type image struct {
	ocispec.Manifest

	config ocispec.Image
}

// A layer is one that was pushed. It is the zero value where there was nothing to push.
type layer struct {
	ocispec.Descriptor

	diffID digest.Digest
}

// encode returns the config and the manifest of the image with more layers.
func (i *image) encode(added []layer) (config, manifest []byte, err error) {
	for _, l := range added {
		if l.Size > 0 {
			i.Layers = append(i.Layers, l.Descriptor)
			i.config.RootFS.DiffIDs = append(i.config.RootFS.DiffIDs, l.diffID)
		}
	}
	if config, err = json.Marshal(i.config); err != nil {
		return nil, nil, err
	}
	i.Versioned, i.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	i.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))}
	if i.Layers == nil {
		i.Layers = []ocispec.Descriptor{}
	}
	manifest, err = json.Marshal(i.Manifest)
	return config, manifest, err
}
