package executor

import (
	"context"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/image"
)

// noteStep notes for the cache export that f is the result of a step of s over the
// layers below.
func (b *build) noteStep(s *dockerfile.Stage, below []*image.Layer, f *finding) {
	b.caches.Note(cache.Step{Result: f.Result, Below: below, InImage: b.inResult[s]})
}

// exports reports whether the layers of s are part of an image.
func (b *build) exports(s *dockerfile.Stage) bool {
	return len(b.exporter.Formats()) > 0 && b.inResult[s]
}

// deliver sends the result, the last states of the targets, to all outputs. It exports
// caches last, since their failure doesn't affect the image.
func (b *build) deliver(ctx context.Context, targets []*state) (*Result, error) {
	annotations, err := b.reads.Annotations(b.opts.Fingerprint)
	if err != nil {
		return nil, err
	}
	var contents []*image.Content
	for i, p := range b.plans.platforms() {
		st := targets[i]
		contents = append(contents, &image.Content{
			Platform: p, Config: st.image, History: st.fullHistory(), Base: st.base, Layers: st.layers,
			Annotations: annotations,
			Records:     func(ctx context.Context, f *image.Format) (any, error) { return b.caches.Inline(ctx, st.layers, f) },
			Files: func(ctx context.Context) (string, error) {
				tree, err := b.sources.View(ctx, st.rootfs)
				if err != nil {
					return "", err
				}
				return tree.Root, nil
			},
		})
	}
	result, err := b.exporter.Deliver(ctx, contents)
	if err != nil {
		return nil, err
	}
	return &Result{Result: result}, b.caches.Export(ctx)
}
