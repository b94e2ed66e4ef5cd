package cache

import (
	"context"
	"encoding/json"

	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A manifest is a cache that is being put together.
type manifest struct {
	exporter *image.Exporter
	format   *image.Format
	records  records
	blobs    []*image.Blob
	layers   []registry.Layer      // what the blobs are
	numbers  map[digest.Digest]int // of the layers, by digest
}

// add returns the number of the layer l in the cache, and the descriptor of its blob.
func (m *manifest) add(ctx context.Context, l *image.Layer) (int, image.Packed, error) {
	made, err := m.exporter.Pack(ctx, l.In(m.format))
	if err != nil {
		return 0, made, err
	}
	n, ok := m.numbers[made.Blob.Digest]
	if !ok {
		n = len(m.blobs)
		m.numbers[made.Blob.Digest] = n
		err = m.addLayer(ctx, l)
	}
	return n, made, err
}

// addLayer adds l as the next layer.
func (m *manifest) addLayer(ctx context.Context, l *image.Layer) error {
	bl := l.In(m.format)
	made, err := m.exporter.Pack(ctx, bl)
	if err != nil {
		return err
	}
	entry := layerEntry{DiffID: made.DiffID}
	if l.ByStep() {
		entry.Compression = m.format.Compression.String()
	}
	m.blobs = append(m.blobs, bl)
	m.layers = append(m.layers, registry.Layer{Descriptor: layerBlob(made.Blob), DiffID: made.DiffID})
	m.records.Layers = append(m.records.Layers, entry)
	return nil
}

// addStep adds s, whose layer is that number of the cache. It returns the chain ID of the
// layers below.
func (m *manifest) addStep(ctx context.Context, s *Step, number int) (below digest.Digest, err error) {
	for _, l := range s.Below {
		made, err := m.exporter.Pack(ctx, l.In(m.format))
		if err != nil {
			return "", err
		}
		below = chainOver(below, made.DiffID)
	}
	m.records.Steps = append(m.records.Steps, stepEntry{Key: s.Key, Layer: number, Below: below, Created: s.Created})
	return below, nil
}

// documents returns the config and the manifest of the cache.
func (m *manifest) documents() (config, body image.Document, err error) {
	data, err := json.Marshal(m.records)
	if err != nil {
		return config, body, err
	}
	config = image.NewDocument(ConfigType, data)
	doc := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config.Descriptor, Layers: []ocispec.Descriptor{},
	}
	for _, l := range m.layers {
		doc.Layers = append(doc.Layers, l.Descriptor)
	}
	if data, err = json.MarshalIndent(doc, "", "  "); err != nil {
		return config, body, err
	}
	return config, image.NewDocument(ocispec.MediaTypeImageManifest, data), nil
}
