package executor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// A notedStep is a step of this build, for the caches that it goes into.
type notedStep struct {
	*finding

	stage *dockerfile.Stage
	below []*layer // that it was made over, base first
}

// noteStep remembers for the caches that f is the result of a step of s over the layers
// below, and has its layer made for them.
func (b *build) noteStep(s *dockerfile.Stage, below []*layer, f *finding) {
	if len(b.opts.CacheTo) == 0 {
		return
	}
	b.mu.Lock()
	b.steps = append(b.steps, notedStep{f, s, below})
	b.mu.Unlock()
	for i := range b.opts.CacheTo {
		if t := &b.opts.CacheTo[i]; !t.Inline && (t.Max || b.exports.stages[s]) {
			b.startBlob(f.layer.in(b.cacheFormat(t)))
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
func (b *build) cacheFormat(t *CacheTarget) *Format {
	switch {
	case t.Compression != nil:
		return &Format{Compression: *t.Compression}
	case len(b.exports.formats) > 0:
		return &Format{Compression: b.exports.formats[0].Compression}
	}
	return &Format{}
}

// cachedSteps returns the steps that a cache of the result, or with all of everything,
// holds: one of each key, in the order of the keys.
func (b *build) cachedSteps(all bool) []notedStep {
	b.mu.Lock()
	defer b.mu.Unlock()
	var steps []notedStep
	for _, s := range b.steps {
		if all || b.exports.stages[s.stage] {
			steps = append(steps, s)
		}
	}
	slices.SortStableFunc(steps, func(a, b notedStep) int { return cmp.Compare(a.key, b.key) })
	return slices.CompactFunc(steps, func(a, b notedStep) bool { return a.key == b.key })
}

// record returns s as a cache has it, whose layer is that number of the cache.
func (s *notedStep) record(number int, f *Format) cachedStep {
	return cachedStep{Key: s.key, Layer: number, Below: chainOf(s.below, f), Created: s.created}
}

// chainOf returns the chain ID of layers whose blobs in format f are there.
func chainOf(layers []*layer, f *Format) digest.Digest {
	var chain digest.Digest
	for _, l := range layers {
		chain = chainOver(chain, l.diffID(f))
	}
	return chain
}

// diffID returns the DiffID of l, whose blob in format f is there if a step made it.
func (l *layer) diffID(f *Format) digest.Digest {
	if l.image != nil {
		return l.base.DiffID
	}
	return l.in(f).diffID
}

// record returns what a cache says of l in format f.
func (l *layer) record(f *Format) cachedLayer {
	c := cachedLayer{DiffID: l.diffID(f)}
	if l.image == nil || l.made != "" {
		c.Compression = f.Compression.String()
	}
	return c
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
// format f, nil if none are wanted there. The layers are complete.
func (b *build) inlineCache(st *state, f *Format) *cacheRecords {
	if !slices.ContainsFunc(b.opts.CacheTo, func(t CacheTarget) bool { return t.Inline }) {
		return nil
	}
	rec := &cacheRecords{Epoch: b.plan.Epoch, Packing: snapshot.Packing, Steps: []cachedStep{}, Links: b.cachedLinks()}
	for _, l := range st.layers {
		rec.Layers = append(rec.Layers, l.record(f))
	}
	for _, s := range b.cachedSteps(false) {
		if i := slices.Index(st.layers, s.layer); i >= 0 {
			rec.Steps = append(rec.Steps, s.record(i, f))
		}
	}
	return rec
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
	f := b.cacheFormat(t)
	steps := b.cachedSteps(t.Max)
	rec := cacheRecords{Epoch: b.plan.Epoch, Packing: snapshot.Packing, Layers: []cachedLayer{}, Steps: []cachedStep{}, Links: b.cachedLinks()}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{},
	}
	var blobs []*blob
	numbers := make(map[digest.Digest]int) // of the layers, by digest
	for _, s := range steps {
		for _, l := range append(slices.Clip(s.below), s.layer) {
			b.startBlob(l.in(f))
			if err := l.in(f).wait(ctx); err != nil {
				return err
			}
		}
	}
	mounts, err := b.exportMounts(ctx, t, f)
	if err != nil {
		return err
	}
	number := func(l *layer) int {
		bl := l.in(f)
		n, ok := numbers[bl.desc.Digest]
		if !ok {
			n = len(blobs)
			numbers[bl.desc.Digest] = n
			blobs = append(blobs, bl)
			manifest.Layers = append(manifest.Layers, layerBlob(bl.desc))
			rec.Layers = append(rec.Layers, l.record(f))
		}
		return n
	}
	for _, s := range steps {
		bl := s.layer.in(f)
		step := s.record(number(s.layer), f)
		rec.Steps = append(rec.Steps, step)
		if err := b.rememberChain(s.rootfs.ID(), chainOver(step.Below, bl.diffID)); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		m.Layer = number(m.layer)
		rec.Mounts = append(rec.Mounts, m.cachedMount)
	}
	config, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	manifest.Config = descriptorOf(CacheConfigType, config)
	body, err := json.MarshalIndent(manifest, "", "  ")
	if err != nil {
		return err
	}
	if t.Dir != "" {
		return b.writeCache(ctx, t, blobs, config, body)
	}
	return b.pushCache(ctx, t, blobs, manifest.Config, config, body)
}

// pushCache pushes what the registry of t lacks of a cache, the manifest last.
func (b *build) pushCache(ctx context.Context, t *CacheTarget, blobs []*blob, configDesc ocispec.Descriptor, config, manifest []byte) error {
	push, err := b.Registry.Push(ctx, t.Ref)
	if err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(uploadsAtOnce)
	for _, bl := range blobs {
		group.Go(func() error {
			from := "" // or where this build has sent it
			if bl.as == nil {
				from = bl.image.Reference
			}
			return push.Blob(gctx, layerBlob(bl.desc), from, func() (io.ReadCloser, error) { return b.open(gctx, bl) })
		})
	}
	group.Go(func() error {
		return push.Blob(gctx, configDesc, "", func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(config)), nil })
	})
	if err := group.Wait(); err != nil {
		return err
	}
	_, err = push.Manifest(ctx, ocispec.MediaTypeImageManifest, manifest)
	return err
}

// writeCache writes a cache to the directory of t.
func (b *build) writeCache(ctx context.Context, t *CacheTarget, blobs []*blob, config, manifest []byte) error {
	img := archive.Image{Manifest: manifest, MediaType: ocispec.MediaTypeImageManifest, Config: config}
	byDigest := make(map[digest.Digest]*blob)
	for _, bl := range blobs {
		img.Layers = append(img.Layers, registry.Layer{Descriptor: layerBlob(bl.desc), DiffID: bl.diffID})
		byDigest[bl.desc.Digest] = bl
	}
	return archive.WriteOCIDir(ctx, t.Dir, archive.Contents{
		Refs:   []string{"cache:" + t.Tag},
		Images: []archive.Image{img},
		Open: func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			return b.open(ctx, byDigest[d.Digest])
		},
	})
}
