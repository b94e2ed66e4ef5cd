package cache

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// format returns how the layers of t are written.
func (c *Caches) format(t *Target) *image.Format {
	f := &image.Format{}
	if formats := c.o.Exporter.Formats(); len(formats) > 0 {
		f.Compression = formats[0].Compression
	}
	if t.Compression != nil {
		f.Compression = *t.Compression
	}
	return f
}

// noted returns the steps that a cache of the result, or with all of everything, holds:
// one of each key, in the order of the keys.
func (c *Caches) noted(all bool) []Step {
	c.mu.Lock()
	defer c.mu.Unlock()
	var steps []Step
	for _, s := range c.steps {
		if all || s.InImage {
			steps = append(steps, s)
		}
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(a.Key, b.Key) })
	return slices.CompactFunc(steps, func(a, b Step) bool { return a.Key == b.Key })
}

// Inline returns the records of the layers of an image for its config in format f, nil if
// none are wanted there.
func (c *Caches) Inline(ctx context.Context, layers []*image.Layer, f *image.Format) (any, error) {
	if !slices.ContainsFunc(c.o.Targets, func(t Target) bool { return t.Inline }) {
		return nil, nil
	}
	m := c.manifest(f)
	for _, l := range layers {
		if err := m.addLayer(ctx, l); err != nil {
			return nil, err
		}
	}
	for _, s := range c.noted(false) {
		if i := slices.Index(layers, s.Layer); i >= 0 {
			if _, err := m.addStep(ctx, &s, i); err != nil {
				return nil, err
			}
		}
	}
	return &m.records, nil
}

// Export writes the caches that are no part of the image.
func (c *Caches) Export(ctx context.Context) error {
	for i := range c.o.Targets {
		t := &c.o.Targets[i]
		if t.Inline {
			continue
		}
		err := c.export(ctx, t)
		if err != nil && t.IgnoreError && ctx.Err() == nil {
			c.o.Progress.Warn(fmt.Sprintf("export cache to %s: %v", t, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("export cache to %s: %w", t, err)
		}
	}
	return nil
}

func (c *Caches) export(ctx context.Context, t *Target) (err error) {
	v := c.o.Progress.Start("exporting cache to " + t.String())
	defer func() {
		if t.IgnoreError {
			v.Done(nil) // the warning tells
			return
		}
		v.Done(err)
	}()
	m := c.manifest(c.format(t))
	steps := c.noted(t.Max)
	for _, s := range steps {
		for _, l := range append(slices.Clip(s.Below), s.Layer) {
			c.o.Exporter.StartBlob(l.In(m.format))
		}
	}
	for _, s := range steps {
		n, made, err := m.add(ctx, s.Layer)
		if err != nil {
			return err
		}
		below, err := m.addStep(ctx, &s, n)
		if err != nil {
			return err
		}
		if err := rememberChain(c.o.Store, s.RootFS.ID(), chainOver(below, made.DiffID)); err != nil {
			return err
		}
	}
	mounts, err := c.exportMounts(ctx, t, m.format)
	if err != nil {
		return err
	}
	for _, mount := range mounts {
		if mount.mountEntry.Layer, _, err = m.add(ctx, mount.layer); err != nil {
			return err
		}
		m.records.Mounts = append(m.records.Mounts, mount.mountEntry)
	}
	return c.to(t).save(ctx, m)
}

// A manifest is a cache as it is put together.
type manifest struct {
	exporter *image.Exporter
	format   *image.Format
	records  records
	blobs    []*image.Blob
	layers   []registry.Layer      // what the blobs are
	numbers  map[digest.Digest]int // of the layers, by digest
}

// manifest returns a cache without steps whose layers are in format f.
func (c *Caches) manifest(f *image.Format) *manifest {
	m := &manifest{exporter: c.o.Exporter, format: f, numbers: make(map[digest.Digest]int)}
	m.records = records{Epoch: c.o.Epoch, Packing: snapshot.Packing, Layers: []layerEntry{}, Steps: []stepEntry{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, to := range c.links {
		m.records.Links = append(m.records.Links, link{key, to})
	}
	slices.SortFunc(m.records.Links, func(a, b link) int { return cmp.Compare(a.Key, b.Key) })
	return m
}

// add returns the number of the layer l in the cache, and what its blob is.
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
