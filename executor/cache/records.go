package cache

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ConfigType is the media type of the config of a cache. A cache is one manifest:
// its layers are layers of steps, and its config says of which steps.
const ConfigType = "application/vnd.bob.cache.config.v1+json"

// records describe the steps whose layers a manifest names. They are the config of a
// cache, or a field of an image's config.
type records struct {
	// Epoch bounds the times in the layers; nil is no bound.
	Epoch *time.Time `json:"epoch,omitempty"`
	// Packing is the [snapshot.Packing] of the layers.
	Packing string `json:"packing"`

	Layers []layerEntry `json:"layers"` // of the manifest, in its order
	Steps  []stepEntry  `json:"steps"`
	Links  []link       `json:"links,omitempty"`
	Mounts []mountEntry `json:"mounts,omitempty"`
}

// A layerEntry is what the manifest doesn't say about its layer.
type layerEntry struct {
	DiffID digest.Digest `json:"diffID"`
	// Compression is how it was made: see [snapshot.Compression.String]. It is "" for
	// a layer of a base image.
	Compression string `json:"compression,omitempty"`
}

// A stepEntry is the result of a step: its layer, and the layers below.
type stepEntry struct {
	Key     digest.Digest `json:"key"`
	Layer   int           `json:"layer"`
	Below   digest.Digest `json:"below,omitempty"` // chain ID of the layers below
	Created time.Time     `json:"created"`
}

// A link is a record that leads to content or to another key: see
// [Caches.Link]. Their keys differ by kind.
type link struct {
	Key digest.Digest `json:"key"`
	To  digest.Digest `json:"to"`
}

// A mountEntry is a cache mount of RUN as a layer of a cache.
type mountEntry struct {
	ID    string        `json:"id"` // as in the Dockerfile
	Key   digest.Digest `json:"key"`
	Layer int           `json:"layer"`
	// Owner is the owner of the directory itself, which the layer doesn't hold.
	Owner Owner `json:"owner"`
}

// An Owner is the owner of a directory, and its permission bits.
type Owner struct{ UID, GID, Mode uint32 }

// readRecords reads the records of img, which are not trusted.
func readRecords(img *registry.Image) (*records, error) {
	rec := &records{}
	if img.Manifest.Config.MediaType == ConfigType {
		if err := json.Unmarshal(img.Config, rec); err != nil {
			return nil, fmt.Errorf("its config: %w", err)
		}
	} else {
		var config struct {
			Cache *records `json:"bob.cache.v0"`
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
func (rec *records) check(img *registry.Image) error {
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

// layerBlob returns the descriptor d without fields that others may have added.
func layerBlob(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: image.OCIMediaType(d.MediaType), Digest: d.Digest, Size: d.Size}
}
