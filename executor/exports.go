package executor

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/registry"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/semaphore"
)

// uploadsAtOnce bounds the blobs on their way to the registries.
const uploadsAtOnce = 4

// exports is where the image goes.
type exports struct {
	formats []*Format                  // of the image, the pushed one first; none: no image is made
	stages  map[*dockerfile.Stage]bool // whose layers are part of it
	targets []*target
	uploads *semaphore.Weighted
}

// A target is one reference that the image is pushed to.
type target struct {
	ref  string
	push *registry.Push
	sent memo.Map[digest.Digest, struct{}]
}

// newExports reaches every target before the first step runs: a build that
// can't be pushed should say so at once.
func (b *build) newExports(ctx context.Context) (*exports, error) {
	e := &exports{
		formats: b.opts.formats(),
		stages:  make(map[*dockerfile.Stage]bool),
		uploads: semaphore.NewWeighted(uploadsAtOnce),
	}
	for _, p := range b.plans {
		for s := p.Target(); s != nil; s = s.Base.Stage {
			e.stages[s] = true
		}
	}
	for _, ref := range b.opts.Tags {
		p, err := b.Registry.Push(ctx, ref)
		if err != nil {
			return nil, err
		}
		e.targets = append(e.targets, &target{ref: ref, push: p})
	}
	return e, nil
}

// wants reports whether the layers of s are part of the image.
func (e *exports) wants(s *dockerfile.Stage) bool { return len(e.formats) > 0 && e.stages[s] }

// pushes reports whether bl is part of what is pushed.
func (e *exports) pushes(bl *blob) bool {
	return len(e.targets) > 0 && bl.wanted.Load() && bl == bl.in(e.formats[0])
}

// send has bl uploaded to every target that hasn't got it.
func (e *exports) send(b *build, bl *blob) {
	for _, t := range e.targets {
		b.group.Go(func() error { return e.sendTo(b.life, b, t, bl) })
	}
}

// sendTo returns when the registry of t has bl.
func (e *exports) sendTo(ctx context.Context, b *build, t *target, bl *blob) error {
	_, err := t.sent.Get(ctx, bl.desc.Digest, func(ctx context.Context) (struct{}, error) {
		if err := e.uploads.Acquire(ctx, 1); err != nil {
			return struct{}{}, context.Cause(ctx)
		}
		defer e.uploads.Release(1)
		return struct{}{}, t.push.Blob(ctx, bl.desc, e.origin(t, bl), func() (io.ReadCloser, error) { return b.open(ctx, bl) })
	})
	return err
}

// origin is the repository that t's registry may mount bl from, "" if none.
func (e *exports) origin(t *target, bl *blob) string {
	switch {
	case bl.as == nil:
		return bl.image.Reference
	case t != e.targets[0]:
		return e.targets[0].ref
	default:
		return ""
	}
}

// deliver completes the image of the states, one for each platform, and takes the
// result everywhere: manifests last, when nothing but they can still fail.
func (b *build) deliver(ctx context.Context, states []*state) (*Result, error) {
	result := &Result{}
	var products []*product
	if len(b.exports.formats) > 0 {
		var err error
		if products, err = b.finish(ctx, states); err != nil {
			return nil, err
		}
		result.Manifest = products[0].desc
		if img := products[0].images; len(img) == 1 {
			result.Config, result.Layers = img[0].configDesc.Digest, img[0].layers
		}
	}
	for i := range b.opts.Outputs {
		if err := b.write(ctx, &b.opts.Outputs[i], states, products); err != nil {
			return nil, err
		}
	}
	for _, t := range b.exports.targets {
		if err := b.pushBlobs(ctx, t, states, products[0]); err != nil {
			return nil, err
		}
	}
	for _, t := range b.exports.targets {
		if err := b.pushManifest(ctx, t, products[0]); err != nil {
			return nil, err
		}
	}
	return result, b.exportCaches(ctx)
}

// finish waits for the layers of the states and writes the image over them, in each
// format.
func (b *build) finish(ctx context.Context, states []*state) (all []*product, err error) {
	v := b.progress.Start("exporting to image")
	defer func() { v.Done(err) }()
	for _, st := range states {
		for _, l := range st.layers {
			b.start(l)
		}
	}
	for _, f := range b.exports.formats {
		for _, st := range states {
			for _, l := range st.layers {
				if err := l.in(f).wait(ctx); err != nil {
					return nil, err
				}
			}
		}
		p, err := b.produce(states, f)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// pushBlobs sends what the registry of t still lacks.
func (b *build) pushBlobs(ctx context.Context, t *target, states []*state, p *product) (err error) {
	v := b.progress.Start("pushing layers for " + t.ref)
	defer func() { v.Done(err) }()
	for _, st := range states {
		for _, l := range st.layers {
			if err := b.exports.sendTo(ctx, b, t, l.in(b.exports.formats[0])); err != nil {
				return err
			}
		}
	}
	for _, img := range p.images {
		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(img.config)), nil }
		if err := t.push.Blob(ctx, img.configDesc, "", open); err != nil {
			return err
		}
	}
	return nil
}

// pushManifest makes the reference of t name the image. The manifests that an index
// names are there before it.
func (b *build) pushManifest(ctx context.Context, t *target, p *product) (err error) {
	v := b.progress.Start("pushing manifest for " + t.ref)
	defer func() { v.Done(err) }()
	body := p.images[0].manifest
	if p.index != nil {
		for _, img := range p.images {
			if _, err := t.push.Child(ctx, img.desc.MediaType, img.manifest); err != nil {
				return err
			}
		}
		body = p.index
	}
	put := t.push.Manifest
	if b.opts.ByDigest {
		put = t.push.Child
	}
	d, err := put(ctx, p.desc.MediaType, body)
	if err != nil {
		return err
	}
	if d != p.desc.Digest {
		return fmt.Errorf("push %s: the registry stored the manifest as %s, sent was %s", t.ref, d, p.desc.Digest)
	}
	return nil
}

// A streaming is an upload that runs while its layer is being compressed. It
// never fails as a writer: when the upload breaks the rest is dropped, and sent
// when the layer is whole.
type streaming struct {
	ctx    context.Context //nolint:containedctx // of one upload, which the value stands for
	target *target
	up     *registry.Upload // nil: there is no upload
}

// stream begins an upload of bl to the first target.
func (e *exports) stream(ctx context.Context, bl *blob) *streaming {
	s := &streaming{ctx: ctx}
	if !e.pushes(bl) {
		return s
	}
	s.target = e.targets[0]
	if up, err := s.target.push.Stream(ctx); err == nil {
		s.up = up
	}
	return s
}

func (s *streaming) Write(p []byte) (int, error) {
	if s.up != nil {
		_, _ = s.up.Write(p) // Commit tells of what went wrong
	}
	return len(p), nil
}

// commit ends the upload under the digest that the bytes turned out to have: a
// broken one too, which is then gone on with.
func (s *streaming) commit(d digest.Digest) {
	if s.up == nil {
		return
	}
	if err := s.up.Commit(d); err != nil {
		return // the rest is sent from the store
	}
	_, _ = s.target.sent.Get(s.ctx, d, func(context.Context) (struct{}, error) { return struct{}{}, nil })
}

// close gives an upload up that wasn't committed.
func (s *streaming) close() {
	if s.up != nil {
		_ = s.up.Close()
		s.up = nil
	}
}
