package cache

import (
	"sync"
	"time"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/executor/source"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options configure the caches of a build.
type Options struct {
	Sources []Source // searched in this order
	Targets []Target

	Store     *snapshot.Store
	Registry  *registry.Client
	Exporter  *image.Exporter
	Progress  *event.Reporter
	Platforms []ocispec.Platform // that are built for
	Epoch     *time.Time         // bounds the times in layers; nil for no bound
	Jobs      int                // bounds the layers that are unpacked at once
	// MaxUnpacked bounds a cache mount, in bytes; 0 is no limit.
	MaxUnpacked int64
	// Lost are the digests of layers that can't be fetched. No result is made of them.
	Lost []digest.Digest
}

// Caches are the caches that a build imports results from and exports its own results
// to. They may be used by several goroutines.
type Caches struct {
	o        Options
	imported memo.Value[[]*imported]

	mu     sync.Mutex
	layers map[*source.RootFS]*importedLayer // by the root file system that they are part of
	steps  []Step                            // of this build
	links  map[digest.Digest]digest.Digest   // from records to what they hold
	mounts map[digest.Digest]usedMount       // by key
}

// A Mount is a cache mount with its layer.
type Mount struct {
	mountEntry

	layer *image.Layer
}

// A usedMount is a cache mount that steps of this build name.
type usedMount struct {
	id      string
	sharing snapshot.Sharing // the strictest among the steps
}

// imported holds the records of an imported cache. Its layers are not fetched yet.
type imported struct {
	steps  map[digest.Digest]importedStep // by key
	links  map[digest.Digest]digest.Digest
	mounts []Mount
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

	id      string        // of the snapshot that it will become
	key     digest.Digest // of the step
	created time.Time
	below   *source.RootFS
	chain   digest.Digest // of this layer and those below
}

// New returns caches and fetches nothing yet.
func New(o Options) *Caches {
	return &Caches{
		o:      o,
		layers: make(map[*source.RootFS]*importedLayer),
		links:  make(map[digest.Digest]digest.Digest),
		mounts: make(map[digest.Digest]usedMount),
	}
}

// Link notes for the export that the record key leads to another key or to content.
func (c *Caches) Link(key, to digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links[key] = to
}
