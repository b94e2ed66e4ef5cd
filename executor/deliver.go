package executor

import (
	"context"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/source"
	"github.com/opencontainers/go-digest"
)

// newExporter returns the exporter of the result of b.
func (b *build) newExporter(ctx context.Context) (*image.Exporter, error) {
	return image.New(ctx, image.Options{
		Destinations: b.opts.destinations(),
		Store:        b.Store, Registry: b.Registry, Progress: b.progress,
		Epoch: b.plan.Epoch, MaxUnpacked: b.opts.MaxUnpacked,
		Go: func(f func(context.Context) error) { b.group.Go(func() error { return f(b.life) }) },
	})
}

// newCaches returns the caches of b and fetches nothing yet.
func (b *build) newCaches(lost []digest.Digest) *cache.Caches {
	o := cache.Options{
		Sources: b.opts.CacheFrom, Targets: b.opts.CacheTo,
		Store: b.Store, Registry: b.Registry, Exporter: b.exporter, Progress: b.progress,
		Platforms: b.platforms(), Epoch: b.plan.Epoch, Jobs: b.opts.copiesAtOnce(), MaxUnpacked: b.opts.MaxUnpacked,
		Lost: lost,
	}
	if b.opts.NoCache {
		o.Sources = nil
	}
	return cache.New(o)
}

// imported returns the result of the operation key over below from an imported cache,
// nil if no cache has it.
func (b *build) imported(ctx context.Context, below *source.RootFS, key digest.Digest) *finding {
	r, ok := b.caches.Find(ctx, below, key)
	if !ok {
		return nil
	}
	return &finding{Result: r}
}

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
	for i, p := range b.platforms() {
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
