package image

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/bobbuild/bob/registry"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Content holds the parts of an image for one platform.
type Content struct {
	Platform ocispec.Platform
	// Config is the image's config without history, time of creation and layers.
	Config  dockerspec.DockerOCIImage
	History []ocispec.History
	Base    []ocispec.History // of the base, unchanged; History begins with it
	Layers  []*Layer          // base first
	// Annotations are put on the manifest.
	Annotations map[string]string
	// Records returns the cache records for the config, whose layers are compressed as
	// in f; nil for no records.
	Records func(ctx context.Context, f *Format) (any, error)
	// Files makes the files of the image present, and returns their root directory.
	Files func(ctx context.Context) (string, error)
}

// A product is the finished image in one format: the image of each platform and, with
// more than one, the index over them.
type product struct {
	images []*assembled
	top    Document // the manifest or the index, to which names of the product refer
}

// assembled is a finished image for one platform.
type assembled struct {
	config, manifest Document
	layers           []registry.Layer
}

// produce writes the documents of the image in format f over the contents, whose layers
// are complete.
func (p *Packer) produce(ctx context.Context, contents []*Content, f *Format) (*product, error) {
	out := &product{}
	for _, c := range contents {
		img, err := p.assemble(ctx, c, f)
		if err != nil {
			return nil, err
		}
		out.images = append(out.images, img)
	}
	if len(contents) == 1 {
		out.top = out.images[0].manifest
		return out, nil
	}
	mediaType, _, _ := f.mediaTypes()
	index := ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   mediaType,
		Annotations: f.annotations(OnIndex, ocispec.Platform{}),
	}
	for i, img := range out.images {
		desc := img.manifest.Descriptor
		desc.Platform = &contents[i].Platform
		index.Manifests = append(index.Manifests, desc)
	}
	body, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("image index: %w", err)
	}
	out.top = NewDocument(mediaType, body)
	out.top.Annotations = f.annotations(OnIndexDescriptor, ocispec.Platform{})
	return out, nil
}

// assemble returns the image of c in format f.
func (p *Packer) assemble(ctx context.Context, c *Content, f *Format) (*assembled, error) {
	img := c.Config
	img.History = completeHistory(c.History, len(c.Layers))
	if p.epoch != nil {
		clampHistory(img.History, c.Base, *p.epoch)
	}
	img.Created = lastCreated(img.History)
	img.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	_, manifestType, configType := f.mediaTypes()
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: manifestType,
		Layers:    []ocispec.Descriptor{},
	}
	if own := f.annotations(OnManifest, c.Platform); len(own)+len(c.Annotations) > 0 {
		manifest.Annotations = make(map[string]string)
		maps.Copy(manifest.Annotations, c.Annotations)
		maps.Copy(manifest.Annotations, own)
	}
	out := &assembled{}
	for _, l := range c.Layers {
		made, err := p.Pack(ctx, l.In(f))
		if err != nil {
			return nil, err
		}
		desc, err := f.descriptor(made.Blob)
		if err != nil {
			return nil, err
		}
		manifest.Layers = append(manifest.Layers, desc)
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, made.DiffID)
		out.layers = append(out.layers, registry.Layer{Descriptor: desc, DiffID: made.DiffID})
	}
	records, err := c.Records(ctx, f)
	if err != nil {
		return nil, err
	}
	config, err := json.Marshal(struct {
		dockerspec.DockerOCIImage

		Cache any `json:"bob.cache.v0,omitempty"`
	}{img, records})
	if err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	out.config = NewDocument(configType, config)
	manifest.Config = out.config.Descriptor
	body, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("image manifest: %w", err)
	}
	out.manifest = NewDocument(manifestType, body)
	out.manifest.Annotations = f.annotations(OnManifestDescriptor, c.Platform)
	return out, nil
}
