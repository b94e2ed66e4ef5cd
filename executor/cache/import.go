package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Import fetches the manifests and configs of the caches. A cache that can't be fetched
// or isn't a cache causes a warning. Lookups wait for Import.
func (c *Caches) Import(ctx context.Context) error {
	_, err := c.load(ctx)
	return err
}

func (c *Caches) load(ctx context.Context) ([]*imported, error) {
	return c.imported.Get(ctx, func(ctx context.Context) (all []*imported, err error) {
		for _, src := range c.o.Sources {
			v := c.o.Progress.Start("importing cache manifest from " + src.String())
			found, err := c.loadOne(ctx, src)
			v.Done(nil)
			if err != nil && ctx.Err() == nil {
				c.o.Progress.Warn(fmt.Sprintf("cache %s: %v; the build goes on without it", src, err))
			}
			all = append(all, found...)
		}
		return all, nil
	})
}

// found waits for Import and returns the caches.
func (c *Caches) found(ctx context.Context) []*imported {
	if len(c.o.Sources) == 0 {
		return nil
	}
	all, err := c.load(ctx)
	if err != nil {
		return nil // the build ends
	}
	return all
}

// loadOne fetches the manifest and config of src. An image for several platforms
// holds a cache for each.
func (c *Caches) loadOne(ctx context.Context, src Source) ([]*imported, error) {
	var all []*imported
	for _, p := range c.o.Platforms {
		img, err := src.backend(c.o.Registry).load(ctx, p)
		if err != nil {
			return all, err
		}
		rec, err := readRecords(img)
		if err != nil {
			return all, err
		}
		if err := c.usable(rec); err != nil {
			// Cache mounts have no part in the image.
			all = append(all, c.read(img, &records{Layers: rec.Layers, Mounts: rec.Mounts}))
			return all, err
		}
		all = append(all, c.read(img, rec))
		if img.Manifest.Config.MediaType == ConfigType {
			break // for all platforms
		}
	}
	return all, nil
}

// usable returns an error that says why layers of rec differ from layers of this build,
// nil if they don't.
func (c *Caches) usable(rec *records) error {
	if one, other := rec.Epoch, c.o.Epoch; (one == nil) != (other == nil) || one != nil && !one.Equal(*other) {
		return errors.New("its layers were made with another SOURCE_DATE_EPOCH")
	}
	if rec.Packing != snapshot.Packing {
		return errors.New("its layers were made by another version of bob, in another form")
	}
	return nil
}

// read returns the imported cache with rec, the records of img.
func (c *Caches) read(img *registry.Image, rec *records) *imported {
	found := &imported{steps: make(map[digest.Digest]importedStep), links: make(map[digest.Digest]digest.Digest)}
	layers := make([]*image.Layer, len(rec.Layers))
	for i, l := range rec.Layers {
		layers[i] = image.Cached(registry.Layer{Descriptor: layerBlob(img.Manifest.Layers[i]), DiffID: l.DiffID}, img, l.Compression)
	}
	for _, s := range rec.Steps {
		if slices.Contains(c.o.Lost, img.Manifest.Layers[s.Layer].Digest) {
			continue
		}
		found.steps[s.Key] = importedStep{layer: layers[s.Layer], below: s.Below, created: s.Created.UTC()}
	}
	for _, m := range rec.Mounts {
		found.mounts = append(found.mounts, Mount{m, layers[m.Layer]})
	}
	for _, l := range rec.Links {
		found.links[l.Key] = l.To
	}
	return found
}

// Linked returns what the records of this kind under key lead to: first the record of
// the store, then the records of imported caches. It waits for these only when they are
// asked for.
func (c *Caches) Linked(ctx context.Context, kind string, key digest.Digest) iter.Seq[digest.Digest] {
	return func(yield func(digest.Digest) bool) {
		if data, err := c.o.Store.Record(kind, key); err == nil {
			if to, err := digest.Parse(string(data)); err == nil && !yield(to) {
				return
			}
		}
		for _, i := range c.found(ctx) {
			if to, ok := i.links[key]; ok && !yield(to) {
				return
			}
		}
	}
}

// Find returns the result of the step with this key over below that an imported cache
// has. It reports false if no cache has it, or if the result was made over another file
// system. It fetches nothing.
func (c *Caches) Find(ctx context.Context, below *source.RootFS, key digest.Digest) (Result, bool) {
	for _, i := range c.found(ctx) {
		s, ok := i.steps[key]
		if !ok {
			continue
		}
		chain, ok := c.chain(below)
		if !ok || chain != s.below {
			continue
		}
		_, base := s.layer.Origin()
		l := &importedLayer{
			Layer: s.layer, id: snapshot.StackID(below.ID(), base.DiffID), key: key, created: s.created,
			below: below, chain: chainOver(chain, base.DiffID),
		}
		r := source.Later(l.id, func(ctx context.Context) (*snapshot.Snapshot, error) { return c.unpack(ctx, l) })
		c.mu.Lock()
		c.layers[r] = l
		c.mu.Unlock()
		return Result{Key: key, Created: s.created, Layer: s.layer, RootFS: r}, true
	}
	return Result{}, false
}

// layer returns the layer of a cache that makes r, nil if r isn't one that was found.
func (c *Caches) layer(r *source.RootFS) *importedLayer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.layers[r]
}

// chain returns the chain ID of the layers of r, "" if r has no layers. ok is false if
// the chain ID isn't known.
func (c *Caches) chain(r *source.RootFS) (chain digest.Digest, ok bool) {
	if l := c.layer(r); l != nil {
		return l.chain, true
	}
	return recallChain(c.o.Store, r.ID())
}

// LostLayer returns the digest of the layer that made the build fail because it can't
// be fetched from an imported cache, or has other content than the cache says. The
// build may succeed without the layer. LostLayer returns "" if the build ended
// otherwise, or if part of an output is written that can't be taken back.
func (c *Caches) LostLayer(ctx context.Context, err error) digest.Digest {
	var is func(registry.Layer) bool
	if lost, why := oci.LostBlob(err); lost != "" {
		err, is = why, func(l registry.Layer) bool { return l.Digest == lost }
	}
	if e, ok := errors.AsType[*snapshot.DiffIDError](err); ok {
		err, is = e, func(l registry.Layer) bool { return l.DiffID == e.Want }
	}
	if is == nil || c.o.Exporter.Written() {
		return ""
	}
	for _, i := range c.found(ctx) {
		for _, s := range i.steps {
			if img, l := s.layer.Origin(); is(l) {
				c.o.Progress.Warn(fmt.Sprintf("cache %s: %v; the build begins anew without that layer", img.Reference, err))
				return l.Digest
			}
		}
	}
	return ""
}

// unpack makes the file system with l on top present. It fetches all imported layers of
// it side by side, and records them in the store as results of their steps.
func (c *Caches) unpack(ctx context.Context, l *importedLayer) (_ *snapshot.Snapshot, err error) {
	var stack []*importedLayer
	bottom := l.below
	for ; l != nil; l = c.layer(bottom) {
		stack = append(stack, l)
		bottom = l.below
	}
	slices.Reverse(stack)
	parent, err := bottom.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	v := c.o.Progress.Start("extracting cached layers")
	defer func() { v.Done(err) }()
	layers := make([]snapshot.Layer, len(stack))
	for i, l := range stack {
		_, base := l.Origin()
		layers[i] = snapshot.Layer{Blob: base.Descriptor, DiffID: base.DiffID, Open: func(ctx context.Context) (io.ReadCloser, error) {
			return c.keepBlob(ctx, l, v)
		}}
	}
	snap, err := c.o.Store.UnpackOver(ctx, parent, layers, c.o.Jobs)
	if err != nil {
		return nil, fmt.Errorf("%w; the cache is damaged: build without it, or make it anew with --cache-to", err)
	}
	for _, l := range stack {
		if err := rememberChain(c.o.Store, l.id, l.chain); err != nil {
			return nil, err
		}
		if err := Remember(c.o.Store, l.key, l.id, l.created); err != nil {
			return nil, err
		}
	}
	return snap, nil
}

// keepBlob opens the layer l. The store keeps the layer when it has been read to the
// end.
func (c *Caches) keepBlob(ctx context.Context, l *importedLayer, v *event.Vertex) (io.ReadCloser, error) {
	img, base := l.Origin()
	from, err := source.OpenBlob(ctx, v, img, base.Descriptor)
	if err != nil {
		return nil, err
	}
	to, err := c.o.Store.CreateBlob()
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	return &keptBlob{ReadCloser: from, to: to, whole: func(d digest.Digest) error {
		desc := ocispec.Descriptor{MediaType: base.MediaType, Digest: d, Size: base.Size}
		return c.o.Exporter.Remember(l.id, l.Layer, image.Packed{Blob: desc, DiffID: base.DiffID})
	}}, nil
}

// A keptBlob is a blob that goes into the store as it is read.
type keptBlob struct {
	io.ReadCloser

	to    *snapshot.BlobWriter
	whole func(digest.Digest) error // called when the store has the blob
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
