package executor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A notedStep is a step of this build, for the caches that it goes into.
type notedStep struct {
	*finding

	stage *dockerfile.Stage
	below []*image.Layer // that it was made over, base first
}

// noteStep remembers for the caches that f is the result of a step of s over the layers
// below, and has its layer made for them.
func (b *build) noteStep(s *dockerfile.Stage, below []*image.Layer, f *finding) {
	if len(b.opts.CacheTo) == 0 {
		return
	}
	b.mu.Lock()
	b.steps = append(b.steps, notedStep{f, s, below})
	b.mu.Unlock()
	for i := range b.opts.CacheTo {
		if t := &b.opts.CacheTo[i]; !t.Inline && (t.Max || b.inResult[s]) {
			b.exporter.StartBlob(f.layer.In(b.cacheFormat(t)))
		}
	}
}

// noteLink remembers for the caches that the record key leads to another key or to
// content.
func (b *build) noteLink(key, to digest.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.links[key] = to
}

// cacheFormat returns how the layers of t are written.
func (b *build) cacheFormat(t *CacheTarget) *image.Format {
	f := &image.Format{}
	if formats := b.exporter.Formats(); len(formats) > 0 {
		f.Compression = formats[0].Compression
	}
	if t.Compression != nil {
		f.Compression = *t.Compression
	}
	return f
}

// cachedSteps returns the steps that a cache of the result, or with all of everything,
// holds: one of each key, in the order of the keys.
func (b *build) cachedSteps(all bool) []notedStep {
	b.mu.Lock()
	defer b.mu.Unlock()
	var steps []notedStep
	for _, s := range b.steps {
		if all || b.inResult[s.stage] {
			steps = append(steps, s)
		}
	}
	slices.SortStableFunc(steps, func(a, b notedStep) int { return cmp.Compare(a.key, b.key) })
	return slices.CompactFunc(steps, func(a, b notedStep) bool { return a.key == b.key })
}

// record returns s as a cache has it, whose layer is that number of the cache. The layers
// below are complete in format f.
func (b *build) stepRecord(ctx context.Context, s *notedStep, number int, f *image.Format) (cachedStep, error) {
	var chain digest.Digest
	for _, l := range s.below {
		made, err := b.exporter.Pack(ctx, l.In(f))
		if err != nil {
			return cachedStep{}, err
		}
		chain = chainOver(chain, made.DiffID)
	}
	return cachedStep{Key: s.key, Layer: number, Below: chain, Created: s.created}, nil
}

// layerRecord returns what a cache says of l in format f.
func (b *build) layerRecord(ctx context.Context, l *image.Layer, f *image.Format) (cachedLayer, error) {
	made, err := b.exporter.Pack(ctx, l.In(f))
	c := cachedLayer{DiffID: made.DiffID}
	if l.ByStep() {
		c.Compression = f.Compression.String()
	}
	return c, err
}

// cachedLinks returns the links of the build in the order of their keys.
func (b *build) cachedLinks() []cachedRecord {
	b.mu.Lock()
	defer b.mu.Unlock()
	links := make([]cachedRecord, 0, len(b.links))
	for key, to := range b.links {
		links = append(links, cachedRecord{key, to})
	}
	slices.SortFunc(links, func(a, b cachedRecord) int { return cmp.Compare(a.Key, b.Key) })
	return links
}

// inlineCache returns the records of the layers of st for the config of its image in
// format f, nil if none are wanted there.
func (b *build) inlineCache(ctx context.Context, st *state, f *image.Format) (any, error) {
	if !slices.ContainsFunc(b.opts.CacheTo, func(t CacheTarget) bool { return t.Inline }) {
		return nil, nil //nolint:nilnil // no records
	}
	rec := &cacheRecords{Epoch: b.plan.Epoch, Packing: snapshot.Packing, Steps: []cachedStep{}, Links: b.cachedLinks()}
	for _, l := range st.layers {
		r, err := b.layerRecord(ctx, l, f)
		if err != nil {
			return nil, err
		}
		rec.Layers = append(rec.Layers, r)
	}
	for _, s := range b.cachedSteps(false) {
		if i := slices.Index(st.layers, s.layer); i >= 0 {
			r, err := b.stepRecord(ctx, &s, i, f)
			if err != nil {
				return nil, err
			}
			rec.Steps = append(rec.Steps, r)
		}
	}
	return rec, nil
}

// exportCaches writes the caches that are no part of the image.
func (b *build) exportCaches(ctx context.Context) error {
	for i := range b.opts.CacheTo {
		t := &b.opts.CacheTo[i]
		if t.Inline {
			continue
		}
		err := b.exportCache(ctx, t)
		if err != nil && t.IgnoreError && ctx.Err() == nil {
			b.progress.Warn(fmt.Sprintf("export cache to %s: %v", t, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("export cache to %s: %w", t, err)
		}
	}
	return nil
}

func (b *build) exportCache(ctx context.Context, t *CacheTarget) (err error) {
	v := b.progress.Start("exporting cache to " + t.String())
	defer func() {
		if t.IgnoreError {
			v.Done(nil) // the warning tells
			return
		}
		v.Done(err)
	}()
	c := &cacheManifest{build: b, format: b.cacheFormat(t), numbers: make(map[digest.Digest]int)}
	c.records = cacheRecords{Epoch: b.plan.Epoch, Packing: snapshot.Packing, Layers: []cachedLayer{}, Steps: []cachedStep{}, Links: b.cachedLinks()}
	steps := b.cachedSteps(t.Max)
	for _, s := range steps {
		for _, l := range append(slices.Clip(s.below), s.layer) {
			b.exporter.StartBlob(l.In(c.format))
		}
	}
	for _, s := range steps {
		if err := c.addStep(ctx, &s); err != nil {
			return err
		}
	}
	mounts, err := b.exportMounts(ctx, t, c.format)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if err := c.addMount(ctx, &m); err != nil {
			return err
		}
	}
	config, manifest, err := c.documents()
	if err != nil {
		return err
	}
	if t.Dir != "" {
		return c.write(ctx, t, config, manifest)
	}
	target, err := b.exporter.Target(ctx, t.Ref)
	if err != nil {
		return err
	}
	return b.exporter.Push(ctx, target, c.blobs, config, manifest)
}

// A cacheManifest is a cache as it is put together.
type cacheManifest struct {
	*build

	format  *image.Format
	records cacheRecords
	blobs   []*image.Blob
	layers  []registry.Layer      // what the blobs are
	numbers map[digest.Digest]int // of the layers, by digest
}

// add returns the number of the layer l in the cache.
func (c *cacheManifest) add(ctx context.Context, l *image.Layer) (int, image.Packed, error) {
	bl := l.In(c.format)
	made, err := c.exporter.Pack(ctx, bl)
	if err != nil {
		return 0, made, err
	}
	n, ok := c.numbers[made.Blob.Digest]
	if !ok {
		rec, err := c.layerRecord(ctx, l, c.format)
		if err != nil {
			return 0, made, err
		}
		n = len(c.blobs)
		c.numbers[made.Blob.Digest] = n
		c.blobs = append(c.blobs, bl)
		c.layers = append(c.layers, registry.Layer{Descriptor: layerBlob(made.Blob), DiffID: made.DiffID})
		c.records.Layers = append(c.records.Layers, rec)
	}
	return n, made, nil
}

func (c *cacheManifest) addStep(ctx context.Context, s *notedStep) error {
	n, made, err := c.add(ctx, s.layer)
	if err != nil {
		return err
	}
	step, err := c.stepRecord(ctx, s, n, c.format)
	if err != nil {
		return err
	}
	c.records.Steps = append(c.records.Steps, step)
	return c.rememberChain(s.rootfs.ID(), chainOver(step.Below, made.DiffID))
}

func (c *cacheManifest) addMount(ctx context.Context, m *mountLayer) (err error) {
	m.Layer, _, err = c.add(ctx, m.layer)
	c.records.Mounts = append(c.records.Mounts, m.cachedMount)
	return err
}

// documents returns the config and the manifest of the cache.
func (c *cacheManifest) documents() (config, manifest image.Document, err error) {
	body, err := json.Marshal(c.records)
	if err != nil {
		return config, manifest, err
	}
	config = image.NewDocument(CacheConfigType, body)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config.Descriptor, Layers: []ocispec.Descriptor{},
	}
	for _, l := range c.layers {
		m.Layers = append(m.Layers, l.Descriptor)
	}
	if body, err = json.MarshalIndent(m, "", "  "); err != nil {
		return config, manifest, err
	}
	return config, image.NewDocument(ocispec.MediaTypeImageManifest, body), nil
}

// write writes the cache to the directory of t.
func (c *cacheManifest) write(ctx context.Context, t *CacheTarget, config, manifest image.Document) error {
	return archive.WriteOCIDir(ctx, t.Dir, archive.Contents{
		Refs:   []string{"cache:" + t.Tag},
		Images: []archive.Image{{Manifest: manifest.Body, MediaType: manifest.MediaType, Config: config.Body, Layers: c.layers}},
		Open: func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			return c.exporter.Open(ctx, c.blobs[c.numbers[d.Digest]])
		},
	})
}
