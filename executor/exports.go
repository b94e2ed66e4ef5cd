package executor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// uploadsAtOnce bounds the blobs on their way to the registries.
const uploadsAtOnce = 4

// exports is where the image goes.
type exports struct {
	image   bool                       // an image is assembled at all
	stages  map[*dockerfile.Stage]bool // whose layers are part of it
	targets []*target
	uploads *semaphore.Weighted
}

// A target is one reference that the image is pushed to.
type target struct {
	ref  string
	push *registry.Push
	sent map[digest.Digest]*promise[struct{}] // guarded by the build's mutex
}

// newExports reaches every target before the first step runs: a build that
// can't be pushed should say so at once.
func (b *build) newExports(ctx context.Context) (*exports, error) {
	e := &exports{
		image:   len(b.opts.Tags) > 0 || len(b.opts.Outputs) == 0 || slices.ContainsFunc(b.opts.Outputs, Output.isImage),
		stages:  make(map[*dockerfile.Stage]bool),
		uploads: semaphore.NewWeighted(uploadsAtOnce),
	}
	for s := b.plan.Target(); s != nil; s = s.Base.Stage {
		e.stages[s] = true
	}
	for _, ref := range b.opts.Tags {
		p, err := b.Registry.Push(ctx, ref)
		if err != nil {
			return nil, err
		}
		e.targets = append(e.targets, &target{ref: ref, push: p, sent: make(map[digest.Digest]*promise[struct{}])})
	}
	return e, nil
}

// wants reports whether the layers of s are part of the image.
func (e *exports) wants(s *dockerfile.Stage) bool { return e.image && e.stages[s] }

// send has l uploaded to every target that hasn't got it.
func (e *exports) send(ctx context.Context, b *build, l *layer) {
	for _, t := range e.targets {
		e.sendTo(ctx, b, t, l)
	}
}

// sendTo returns the promise that the registry of t has l. A blob that can't be
// sent ends the build.
func (e *exports) sendTo(ctx context.Context, b *build, t *target, l *layer) *promise[struct{}] {
	return once(b, t.sent, l.blob.Digest, func() (struct{}, error) {
		if err := e.uploads.Acquire(ctx, 1); err != nil {
			return struct{}{}, context.Cause(ctx)
		}
		defer e.uploads.Release(1)
		err := t.push.Blob(ctx, l.blob, e.origin(t, l), func() (io.ReadCloser, error) { return b.open(ctx, l) })
		b.fail(err)
		return struct{}{}, err
	})
}

// origin is the repository that t's registry may mount l from, "" if none.
func (e *exports) origin(t *target, l *layer) string {
	switch {
	case l.image != nil:
		return l.image.Reference
	case t != e.targets[0]:
		return e.targets[0].ref
	default:
		return ""
	}
}

// deliver completes the image of st and takes the result everywhere: manifests
// last, when nothing but they can still fail.
func (b *build) deliver(ctx context.Context, st *state) (*Result, error) {
	result := &Result{}
	var img *assembled
	if b.exports.image {
		var err error
		if img, err = b.finish(ctx, st); err != nil {
			return nil, err
		}
		result.Manifest, result.Config, result.Layers = img.desc, img.configDesc.Digest, img.layers
	}
	for _, o := range b.opts.Outputs {
		if err := b.write(ctx, o, st, img); err != nil {
			return nil, err
		}
	}
	for _, t := range b.exports.targets {
		if err := b.pushBlobs(ctx, t, st, img); err != nil {
			return nil, err
		}
	}
	for _, t := range b.exports.targets {
		if err := b.pushManifest(ctx, t, img); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// finish waits for the layers of st and writes config and manifest over them.
func (b *build) finish(ctx context.Context, st *state) (img *assembled, err error) {
	v := b.progress.start("exporting to image")
	defer func() { v.done(err) }()
	for _, l := range st.layers {
		b.start(ctx, l)
	}
	for _, l := range st.layers {
		if err := l.wait(ctx); err != nil {
			return nil, err
		}
	}
	return b.assemble(st)
}

// pushBlobs sends what the registry of t still lacks.
func (b *build) pushBlobs(ctx context.Context, t *target, st *state, img *assembled) (err error) {
	v := b.progress.start("pushing layers for " + t.ref)
	defer func() { v.done(err) }()
	for _, l := range st.layers {
		if _, err := b.exports.sendTo(ctx, b, t, l).wait(ctx); err != nil {
			return err
		}
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(img.config)), nil }
	return t.push.Blob(ctx, img.configDesc, "", open)
}

// pushManifest makes the reference of t name the image.
func (b *build) pushManifest(ctx context.Context, t *target, img *assembled) (err error) {
	v := b.progress.start("pushing manifest for " + t.ref)
	defer func() { v.done(err) }()
	d, err := t.push.Manifest(ctx, img.desc.MediaType, img.manifest)
	if err != nil {
		return err
	}
	if d != img.desc.Digest {
		return fmt.Errorf("push %s: the registry stored the manifest as %s, sent was %s", t.ref, d, img.desc.Digest)
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

// stream begins an upload to the first target.
func (e *exports) stream(ctx context.Context) *streaming {
	s := &streaming{ctx: ctx}
	if len(e.targets) == 0 {
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
func (s *streaming) commit(b *build, d digest.Digest) {
	if s.up == nil {
		return
	}
	if err := s.up.Commit(d); err != nil {
		return // the rest is sent from the store
	}
	once(b, s.target.sent, d, func() (struct{}, error) { return struct{}{}, nil })
}

// close gives an upload up that wasn't committed.
func (s *streaming) close() {
	if s.up != nil {
		_ = s.up.Close()
		s.up = nil
	}
}

// layerOf returns the layer whose blob is d, nil if there is none.
func layerOf(layers []*layer, d ocispec.Descriptor) *layer {
	i := slices.IndexFunc(layers, func(l *layer) bool { return l.blob.Digest == d.Digest })
	if i < 0 {
		return nil
	}
	return layers[i]
}
