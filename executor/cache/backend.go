package cache

import (
	"context"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Source is a cache to import: one made by a [Target], or an image that holds one
// itself. Exactly one field is set.
type Source struct {
	Ref    string               // in a registry
	Layout *archive.LayoutImage // in a directory
}

// String returns the source as errors name it.
func (s Source) String() string {
	if s.Layout != nil {
		return s.Layout.String()
	}
	return s.Ref
}

// A Target is where a build leaves its results for builds elsewhere. Exactly one
// of Ref, Dir and Inline is set.
type Target struct {
	Ref string // in a registry
	Dir string // an OCI image layout; it keeps what else it holds
	Tag string // of the cache in Dir
	// Inline puts the records of the result's layers into the image itself.
	Inline bool
	// Max keeps the steps of all stages, not only those of the stages of the result.
	Max bool
	// Compression is the compression of layers. nil is the compression of the image, so
	// that the cache and the image share layers.
	Compression *snapshot.Compression
	// Mounts are the IDs of cache mounts to keep too, each as a layer.
	Mounts []string
	// IgnoreError makes a warning of a cache that can't be written.
	IgnoreError bool
}

// String returns the target as errors name it.
func (t *Target) String() string {
	if t.Dir != "" {
		return t.Dir
	}
	return t.Ref
}

// A backend keeps caches.
type backend interface {
	// load returns the manifest and the config of a cache or of an image for p.
	load(ctx context.Context, p ocispec.Platform) (*registry.Image, error)
	// save keeps a cache. It writes the manifest last.
	save(ctx context.Context, m *manifest) error
}

// backend returns the backend that keeps s.
func (s Source) backend(client *registry.Client) backend {
	if s.Layout != nil {
		return &directory{layout: *s.Layout}
	}
	return &registered{client: client, ref: s.Ref}
}

// backend returns the backend that keeps t.
func (t *Target) backend(client *registry.Client) backend {
	if t.Dir != "" {
		return &directory{layout: archive.LayoutImage{Dir: t.Dir, Tag: t.Tag}}
	}
	return &registered{client: client, ref: t.Ref}
}
