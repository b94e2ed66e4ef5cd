package image

import (
	"sync"
	"sync/atomic"

	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Layer is one layer of an image. It may be used by several goroutines, and is compared
// by its address.
type Layer struct {
	image *registry.Image // that the layer belongs to; nil if it is this machine's
	base  registry.Layer  // as image has it
	// cached is its compression if image is a cache, where a step has made it; "" for a base's.
	cached string
	of     *snapshot.Snapshot // that it is made of; nil for a layer of a base and for a stream

	wanted atomic.Bool                       // is part of the result
	place  atomic.Pointer[func(error) error] // gives an error the place of a step that made it

	mu    sync.Mutex
	blobs map[string]*Blob // by compression, "" for the image's
}

// A Blob is a layer in the form in which it is kept and sent.
type Blob struct {
	*Layer

	as   *snapshot.Compression // nil: as image has it
	made memo.Value[Packed]
}

// A Packed describes a blob that is in the store, or a blob of a base.
type Packed struct {
	Blob   ocispec.Descriptor // as if the image were OCI's
	DiffID digest.Digest      // of the uncompressed tar
}

// Made returns the layer of a step's snapshot. There is one for each snapshot.
func Made(snap *snapshot.Snapshot) *Layer { return &Layer{of: snap} }

// Based returns the layer l of the image img.
func Based(l registry.Layer, img *registry.Image) *Layer { return &Layer{image: img, base: l} }

// Cached returns the layer l of the cache img, which a step elsewhere has made. The
// compression is as [snapshot.Compression.String] has it; "" is a layer of a base.
func Cached(l registry.Layer, img *registry.Image, compression string) *Layer {
	return &Layer{image: img, base: l, cached: compression}
}

// Origin returns the image or the cache that has l, and its descriptor there. It
// returns nil if this machine has made l.
func (l *Layer) Origin() (*registry.Image, registry.Layer) { return l.image, l.base }

// ByStep reports whether a step has made l, here or elsewhere.
func (l *Layer) ByStep() bool { return l.image == nil || l.cached != "" }

// Place passes errors about the files of a step through place, which adds where the
// step is. If several steps make the same layer, the first place is used.
func (l *Layer) Place(place func(error) error) { l.place.CompareAndSwap(nil, &place) }

func (l *Layer) placed(err error) error {
	if place := l.place.Load(); place != nil && err != nil {
		return (*place)(err)
	}
	return err
}

// In returns the blob that l is in an image of format f.
func (l *Layer) In(f *Format) *Blob {
	key, as := f.Compression.String(), &f.Compression
	if l.image != nil && l.fits(f) {
		key, as = "", nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	bl := l.blobs[key]
	if bl == nil {
		if l.blobs == nil {
			l.blobs = make(map[string]*Blob)
		}
		bl = &Blob{Layer: l, as: as}
		l.blobs[key] = bl
	}
	return bl
}

// fits reports whether l, which belongs to an image or a cache, goes into an image of f as
// it is.
func (l *Layer) fits(f *Format) bool {
	if l.cached != "" {
		return l.cached == f.Compression.String()
	}
	return !f.recompresses(l.base.MediaType)
}

// goes reports whether bl is part of an image in format f.
func (bl *Blob) goes(f *Format) bool { return bl.wanted.Load() && bl == bl.In(f) }

// lender returns the reference of an image from which a registry may mount the blob, ""
// if there is no such image.
func (bl *Blob) lender() string {
	if bl.as == nil {
		return bl.image.Reference
	}
	return ""
}
