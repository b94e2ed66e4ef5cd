package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An importedCache is what a cache elsewhere knows. Nothing of its layers is here yet.
type importedCache struct {
	steps  map[digest.Digest]importedStep // by key
	links  map[digest.Digest]digest.Digest
	mounts []mountLayer
}

// An importedStep is the result of a step in a cache.
type importedStep struct {
	layer   *image.Layer
	below   digest.Digest // chain ID
	created time.Time
}

// An importedLayer is a layer of a cache as part of a file system.
type importedLayer struct {
	*image.Layer

	key     digest.Digest // of the step
	created time.Time
	below   *rootfs
	chain   digest.Digest // of this layer and those below
}

// importCaches fetches the caches that results are looked for in. A cache that can't be
// had, or isn't one, costs a warning.
func (b *build) importCaches(ctx context.Context) ([]*importedCache, error) {
	return b.caches.Get(ctx, func(ctx context.Context) (all []*importedCache, err error) {
		if b.opts.NoCache {
			return nil, nil
		}
		for _, src := range b.opts.CacheFrom {
			v := b.progress.Start("importing cache manifest from " + src.String())
			found, err := b.importCache(ctx, src)
			v.Done(nil)
			if err != nil && ctx.Err() == nil {
				b.progress.Warn(fmt.Sprintf("cache %s: %v; the build goes on without it", src, err))
			}
			all = append(all, found...)
		}
		return all, nil
	})
}

// importedCaches returns the caches when they are there.
func (b *build) importedCaches(ctx context.Context) []*importedCache {
	if len(b.opts.CacheFrom) == 0 {
		return nil
	}
	caches, err := b.importCaches(ctx)
	if err != nil {
		return nil // the build ends
	}
	return caches
}

// importCache fetches the manifest and config of src. An image for several platforms
// holds a cache for each.
func (b *build) importCache(ctx context.Context, src CacheSource) ([]*importedCache, error) {
	var all []*importedCache
	for _, p := range b.platforms() {
		var img *registry.Image
		var err error
		if src.Layout != nil {
			img, err = src.Layout.ResolveArtifact(ctx, p, CacheConfigType)
		} else {
			img, err = b.Registry.ResolveArtifact(ctx, src.Ref, p, CacheConfigType)
		}
		if err != nil {
			return all, err
		}
		rec, err := readCacheRecords(img)
		if err != nil {
			return all, err
		}
		if err := b.usable(rec); err != nil {
			// Cache mounts have no part in the image.
			all = append(all, b.newImportedCache(img, &cacheRecords{Layers: rec.Layers, Mounts: rec.Mounts}))
			return all, err
		}
		all = append(all, b.newImportedCache(img, rec))
		if img.Manifest.Config.MediaType == CacheConfigType {
			break // for all platforms
		}
	}
	return all, nil
}

// usable tells why layers of rec aren't what this build would make, nil if they are.
func (b *build) usable(rec *cacheRecords) error {
	if one, other := rec.Epoch, b.plan.Epoch; (one == nil) != (other == nil) || one != nil && !one.Equal(*other) {
		return errors.New("its layers were made with another SOURCE_DATE_EPOCH")
	}
	if rec.Packing != snapshot.Packing {
		return errors.New("its layers were made by another version of bob, in another form")
	}
	return nil
}

func (b *build) newImportedCache(img *registry.Image, rec *cacheRecords) *importedCache {
	c := &importedCache{steps: make(map[digest.Digest]importedStep), links: make(map[digest.Digest]digest.Digest)}
	layers := make([]*image.Layer, len(rec.Layers))
	for i, l := range rec.Layers {
		layers[i] = image.Cached(registry.Layer{Descriptor: layerBlob(img.Manifest.Layers[i]), DiffID: l.DiffID}, img, l.Compression)
	}
	for _, s := range rec.Steps {
		if slices.Contains(b.lost, img.Manifest.Layers[s.Layer].Digest) {
			continue
		}
		c.steps[s.Key] = importedStep{layer: layers[s.Layer], below: s.Below, created: s.Created.UTC()}
	}
	for _, m := range rec.Mounts {
		c.mounts = append(c.mounts, mountLayer{m, layers[m.Layer]})
	}
	for _, l := range rec.Links {
		c.links[l.Key] = l.To
	}
	return c
}

// imported returns the result of the operation key over below that an imported cache
// has, nil if none has it or it was made over something else. Nothing of it is fetched.
func (b *build) imported(ctx context.Context, below *rootfs, key digest.Digest) *finding {
	for _, c := range b.importedCaches(ctx) {
		s, ok := c.steps[key]
		if !ok {
			continue
		}
		chain, ok := b.chain(below)
		if !ok || chain != s.below {
			continue
		}
		_, l := s.layer.Origin()
		diffID := l.DiffID
		r := &rootfs{layer: &importedLayer{
			Layer: s.layer, key: key, created: s.created, below: below, chain: chainOver(chain, diffID),
		}}
		r.RootFS = source.Later(snapshot.StackID(below.ID(), diffID), func(ctx context.Context) (*snapshot.Snapshot, error) {
			return b.unpackImported(ctx, r)
		})
		return &finding{key: key, created: s.created, layer: s.layer, rootfs: r}
	}
	return nil
}

// lostLayer returns the layer of an imported cache that can't be had, or isn't what the
// cache says, if the build failed for that: it may go well without. It is "" for every
// other end, and where part of an output is out that can't be taken back.
func (b *build) lostLayer(ctx context.Context, err error) digest.Digest {
	var is func(registry.Layer) bool
	if lost, why := oci.LostBlob(err); lost != "" {
		err, is = why, func(l registry.Layer) bool { return l.Digest == lost }
	}
	if e, ok := errors.AsType[*snapshot.DiffIDError](err); ok {
		err, is = e, func(l registry.Layer) bool { return l.DiffID == e.Want }
	}
	if is == nil || b.exporter == nil || b.exporter.Written() {
		return ""
	}
	for _, c := range b.importedCaches(ctx) {
		for _, s := range c.steps {
			if img, l := s.layer.Origin(); is(l) {
				b.progress.Warn(fmt.Sprintf("cache %s: %v; the build begins anew without that layer", img.Reference, err))
				return l.Digest
			}
		}
	}
	return ""
}

// chainOver returns the chain ID of a layer over those of chain, "" for none.
func chainOver(chain, diffID digest.Digest) digest.Digest {
	if chain == "" {
		return diffID
	}
	return identity.ChainID([]digest.Digest{chain, diffID})
}

// unpackImported makes r present together with all imported layers below it, which are
// fetched side by side, and has the store remember them as results of their steps.
func (b *build) unpackImported(ctx context.Context, r *rootfs) (_ *snapshot.Snapshot, err error) {
	var stack []*rootfs
	bottom := r
	for ; bottom.layer != nil; bottom = bottom.layer.below {
		stack = append(stack, bottom)
	}
	slices.Reverse(stack)
	parent, err := bottom.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	v := b.progress.Start("extracting cached layers")
	defer func() { v.Done(err) }()
	layers := make([]snapshot.Layer, len(stack))
	for i, r := range stack {
		_, l := r.layer.Origin()
		layers[i] = snapshot.Layer{Blob: l.Descriptor, DiffID: l.DiffID, Open: func(ctx context.Context) (io.ReadCloser, error) {
			return b.keepBlob(ctx, r, v)
		}}
	}
	snap, err := b.Store.UnpackOver(ctx, parent, layers, b.opts.Jobs)
	if err != nil {
		return nil, fmt.Errorf("%w; the cache is damaged: build without it, or make it anew with --cache-to", err)
	}
	for _, r := range stack {
		if err := b.rememberChain(r.ID(), r.layer.chain); err != nil {
			return nil, err
		}
		if err := b.results.remember(recordKind, r.layer.key, &stepRecord{Snapshot: r.ID(), Created: r.layer.created}); err != nil {
			return nil, err
		}
	}
	return snap, nil
}

// keepBlob opens the layer of r, which the store keeps when it has been read.
func (b *build) keepBlob(ctx context.Context, r *rootfs, v *event.Vertex) (io.ReadCloser, error) {
	img, l := r.layer.Origin()
	from, err := source.OpenBlob(ctx, v, img, l.Descriptor)
	if err != nil {
		return nil, err
	}
	to, err := b.Store.CreateBlob()
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	return &keptBlob{ReadCloser: from, to: to, whole: func(d digest.Digest) error {
		desc := ocispec.Descriptor{MediaType: l.MediaType, Digest: d, Size: l.Size}
		return b.exporter.Remember(r.ID(), r.layer.Layer, image.Packed{Blob: desc, DiffID: l.DiffID})
	}}, nil
}

// A keptBlob is a blob that goes into the store as it is read.
type keptBlob struct {
	io.ReadCloser

	to    *snapshot.BlobWriter
	whole func(digest.Digest) error // called when the store has it
	ended bool
}

func (k *keptBlob) Read(p []byte) (int, error) {
	n, err := k.ReadCloser.Read(p)
	if _, werr := k.to.Write(p[:n]); werr != nil {
		return n, werr
	}
	k.ended = errors.Is(err, io.EOF)
	return n, err
}

func (k *keptBlob) Close() error {
	err := k.ReadCloser.Close()
	if err == nil && k.ended {
		var d digest.Digest
		if d, _, err = k.to.Commit(); err == nil {
			err = k.whole(d)
		}
	}
	return errors.Join(err, k.to.Close())
}
