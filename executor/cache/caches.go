package cache

import (
	"context"
	"iter"
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

// Options are what the caches of a build work with.
type Options struct {
	Sources []Source // looked in in their order
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
	// Lost are the digests of layers that can't be had: no result is made of them.
	Lost []digest.Digest
}

// Caches are those that a build takes results from, and those that it leaves its own in.
// They may be used by several goroutines.
type Caches struct {
	o        Options
	imported memo.Value[[]*imported]

	mu     sync.Mutex
	layers map[*source.RootFS]*importedLayer // that make root file systems which were found
	steps  []Step                            // of this build
	links  map[digest.Digest]digest.Digest   // from records to what they hold
	mounts map[digest.Digest]usedMount       // by key
}

// New returns caches of which nothing is fetched yet.
func New(o Options) *Caches {
	return &Caches{
		o:      o,
		layers: make(map[*source.RootFS]*importedLayer),
		links:  make(map[digest.Digest]digest.Digest),
		mounts: make(map[digest.Digest]usedMount),
	}
}

// A Result is what a step came to.
type Result struct {
	Key     digest.Digest
	Created time.Time // when the step ended
	Layer   *image.Layer
	RootFS  *source.RootFS
}

// A Step is a step of this build, for the caches that it goes into.
type Step struct {
	Result

	Below   []*image.Layer // that it was made over, base first
	InImage bool           // its layer is part of the result
}

// Note remembers s for the caches, and has its layer made for them.
func (c *Caches) Note(s Step) {
	if len(c.o.Targets) == 0 {
		return
	}
	c.mu.Lock()
	c.steps = append(c.steps, s)
	c.mu.Unlock()
	for i := range c.o.Targets {
		if t := &c.o.Targets[i]; !t.Inline && (t.Max || s.InImage) {
			c.o.Exporter.StartBlob(s.Layer.In(c.format(t)))
		}
	}
}

// Link remembers for the caches that the record key leads to another key or to content.
func (c *Caches) Link(key, to digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.links[key] = to
}

// Linked returns what the records of this kind under key lead to: that of the store
// first, then those of imported caches, which are waited for only then.
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
