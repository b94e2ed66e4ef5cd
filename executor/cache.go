package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/recipe"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CacheConfigType is the media type of the config of a cache. A cache is one manifest:
// its layers are those of steps, its config says which steps.
const CacheConfigType = "application/vnd.bob.cache.config.v1+json"

// A CacheSource is a cache to import: one made by a [CacheTarget], or an image that
// holds one itself. Exactly one field is set.
type CacheSource struct {
	Ref    string               // in a registry
	Layout *archive.LayoutImage // in a directory
}

// String returns the source as errors name it.
func (s CacheSource) String() string {
	if s.Layout != nil {
		return s.Layout.String()
	}
	return s.Ref
}

// A CacheTarget is where a build leaves its results for builds elsewhere. Exactly one
// of Ref, Dir and Inline is set.
type CacheTarget struct {
	Ref string // in a registry
	Dir string // an OCI image layout; it keeps what else it holds
	Tag string // of the cache in Dir
	// Inline puts the records of the result's layers into the image itself.
	Inline bool
	// Max has the steps of all stages kept, not only those of the result.
	Max bool
	// Compression is that of the layers; nil is the image's, so that the cache and
	// the image have their layers in common.
	Compression *snapshot.Compression
	// Mounts are the IDs of cache mounts that are kept too, each as a layer.
	Mounts []string
	// IgnoreError makes a warning of a cache that can't be written.
	IgnoreError bool
}

// String returns the target as errors name it.
func (t *CacheTarget) String() string {
	if t.Dir != "" {
		return t.Dir
	}
	return t.Ref
}

// cacheRecords is what is known of steps whose layers a manifest names: the config of
// a cache, or a field of an image's.
type cacheRecords struct {
	// Epoch is what bounds the times in the layers, nil for nothing.
	Epoch *time.Time `json:"epoch,omitempty"`
	// Packing is the [snapshot.Packing] of the layers.
	Packing string `json:"packing"`

	Layers []cachedLayer  `json:"layers"` // of the manifest, in its order
	Steps  []cachedStep   `json:"steps"`
	Links  []cachedRecord `json:"links,omitempty"`
	Mounts []cachedMount  `json:"mounts,omitempty"`
}

// A cachedLayer is what a manifest doesn't tell of its layer.
type cachedLayer struct {
	DiffID digest.Digest `json:"diffID"`
	// Compression is how it was made: see [snapshot.Compression.String]. It is "" for
	// a layer of a base image.
	Compression string `json:"compression,omitempty"`
}

// A cachedStep is the result of a step: a layer over those that it was made on.
type cachedStep struct {
	Key     digest.Digest `json:"key"`
	Layer   int           `json:"layer"`
	Below   digest.Digest `json:"below,omitempty"` // chain ID of the layers below
	Created time.Time     `json:"created"`
}

// A cachedRecord is a record that leads to content or to another key: see aliasKind
// and mountedKind. Their keys differ by kind.
type cachedRecord struct {
	Key digest.Digest `json:"key"`
	To  digest.Digest `json:"to"`
}

// readCacheRecords reads the records of img, whose every word is an outsider's.
func readCacheRecords(img *registry.Image) (*cacheRecords, error) {
	rec := &cacheRecords{}
	if img.Manifest.Config.MediaType == CacheConfigType {
		if err := json.Unmarshal(img.Config, rec); err != nil {
			return nil, fmt.Errorf("its config: %w", err)
		}
	} else {
		var config struct {
			Cache *cacheRecords `json:"bob.cache.v0"`
		}
		if err := json.Unmarshal(img.Config, &config); err != nil {
			return nil, fmt.Errorf("its config: %w", err)
		}
		if config.Cache == nil {
			return nil, errors.New("the image holds no cache: build it with --cache-to type=inline")
		}
		rec = config.Cache
	}
	return rec, rec.check(img)
}

// check refuses records that can't be true of img.
func (rec *cacheRecords) check(img *registry.Image) error {
	blobs := img.Manifest.Layers
	if len(rec.Layers) != len(blobs) {
		return fmt.Errorf("its manifest has %d layers, its records tell of %d", len(blobs), len(rec.Layers))
	}
	for i, l := range rec.Layers {
		if err := checkSHA256(l.DiffID); err != nil {
			return fmt.Errorf("layers[%d].diffID: %w", i, err)
		}
		if img.Layers != nil && img.Layers[i].DiffID != l.DiffID {
			return fmt.Errorf("layers[%d].diffID %s is not that of the image", i, l.DiffID)
		}
		method, _, _ := strings.Cut(l.Compression, "-")
		switch method := snapshot.Method(method); method {
		case "":
		case snapshot.Gzip, snapshot.Zstd, snapshot.Uncompressed:
			if image.OCIMediaType(blobs[i].MediaType) != image.LayerMediaType(method) {
				return fmt.Errorf("layers[%d]: %q is not compressed by %s", i, blobs[i].MediaType, method)
			}
		default:
			return fmt.Errorf("layers[%d].compression %q: want gzip, zstd or uncompressed", i, l.Compression)
		}
	}
	known := make(map[digest.Digest]bool)
	for i, s := range rec.Steps {
		err := checkSHA256(s.Key)
		switch {
		case err != nil:
			return fmt.Errorf("steps[%d].key: %w", i, err)
		case known[s.Key]:
			return fmt.Errorf("steps[%d]: the key %s is there twice", i, s.Key)
		case s.Layer < 0 || s.Layer >= len(rec.Layers):
			return fmt.Errorf("steps[%d].layer %d: there are %d layers", i, s.Layer, len(rec.Layers))
		case rec.Layers[s.Layer].Compression == "":
			return fmt.Errorf("steps[%d].layer %d: no step made it", i, s.Layer)
		}
		known[s.Key] = true
		if err := checkSHA256(s.Below); s.Below != "" && err != nil {
			return fmt.Errorf("steps[%d].below: %w", i, err)
		}
	}
	for i, m := range rec.Mounts {
		if err := checkSHA256(m.Key); err != nil {
			return fmt.Errorf("mounts[%d].key: %w", i, err)
		}
		if m.Layer < 0 || m.Layer >= len(rec.Layers) {
			return fmt.Errorf("mounts[%d].layer %d: there are %d layers", i, m.Layer, len(rec.Layers))
		}
	}
	for i, l := range rec.Links {
		if err := errors.Join(checkSHA256(l.Key), checkSHA256(l.To)); err != nil {
			return fmt.Errorf("links[%d]: %w", i, err)
		}
	}
	return nil
}

func checkSHA256(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%.80q: %w", string(d), err)
	}
	if d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("%s: %w", d, digest.ErrDigestUnsupported)
	}
	return nil
}

// chainKind are records of the chain IDs of snapshots that aren't named by them, by
// chainKey.
const chainKind = "chain-2"

func chainKey(id string) digest.Digest { return recipe.Key("chain", id) }

// chain returns the chain ID of the layers that r is made of, "" for none; ok is false
// where it isn't known.
func (b *build) chain(r *rootfs) (chain digest.Digest, ok bool) {
	switch {
	case r.layer != nil:
		return r.layer.chain, true
	case r.ID() == "":
		return "", true
	}
	if data, err := b.Store.Record(chainKind, chainKey(r.ID())); err == nil {
		chain, err = digest.Parse(string(data))
		return chain, err == nil
	}
	chain = digest.NewDigestFromEncoded(digest.SHA256, r.ID())
	return chain, chain.Validate() == nil
}

// rememberChain remembers that the snapshot id is made of the layers of chain.
func (b *build) rememberChain(id string, chain digest.Digest) error {
	if id == chain.Encoded() {
		return nil
	}
	return b.Store.PutRecord(chainKind, chainKey(id), []byte(chain))
}

// linkedTo returns what the records of this kind under key lead to: that of the store
// first, then those of imported caches, which are waited for only then.
func (b *build) linkedTo(ctx context.Context, kind string, key digest.Digest) iter.Seq[digest.Digest] {
	return func(yield func(digest.Digest) bool) {
		if data, err := b.Store.Record(kind, key); err == nil {
			if to, err := digest.Parse(string(data)); err == nil && !yield(to) {
				return
			}
		}
		for _, c := range b.importedCaches(ctx) {
			if to, ok := c.links[key]; ok && !yield(to) {
				return
			}
		}
	}
}

// layerBlob is the descriptor of d without what others may have written beside it.
func layerBlob(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: image.OCIMediaType(d.MediaType), Digest: d.Digest, Size: d.Size}
}
