package layertar

import (
	"context"
	"io"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/owners"
)

// A Layer is the layer of an image that is being unpacked into a directory. One goroutine
// uses it at a time.
type Layer struct {
	x    *extractor
	root string
}

// NewLayer begins to unpack a layer into the empty directory root, with marks of the form
// m. The caller closes it.
func NewLayer(root string, keeper owners.Keeper, m layers.Marks, budget *bounded.Budget) (*Layer, error) {
	x, err := newExtractor(root, Options{Owners: keeper, Budget: budget}, newLayerWork(m))
	if err != nil {
		return nil, err
	}
	return &Layer{x, root}, nil
}

// Extract extracts the tar r by itself, up to its end marker.
func (l *Layer) Extract(ctx context.Context, r io.Reader) error {
	defer l.x.tree.reset() // it may wait for the layers below
	if err := l.x.run(ctx, r); err != nil {
		return err
	}
	return l.x.applyWhiteouts()
}

// Settle finishes the layer on top of the layers lower, the top one first, which must be
// settled: directories without an entry take their attributes from below, or are where the
// link leads that is there; hard links find their targets. opaque says whether the layer
// hides all of those below.
func (l *Layer) Settle(ctx context.Context, lower []string) (opaque bool, err error) {
	err = l.x.settle(ctx, l.root, lower)
	return l.x.layer.opaqueAt[""], err
}

// Close closes what the layer has opened.
func (l *Layer) Close() { l.x.tree.close() }
