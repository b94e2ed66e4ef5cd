package image

import (
	"context"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// Options configure an [Exporter].
type Options struct {
	Destinations

	Store       *snapshot.Store
	Registry    *registry.Client
	Progress    *event.Reporter
	Epoch       *time.Time // bounds the times in layers and histories; nil for no bound
	MaxUnpacked int64      // in bytes, of a layer that is compressed anew; 0 for no limit
	// Go runs a function beside the build, which ends with the first error.
	Go func(func(context.Context) error)
}

// An Exporter takes the result of a build to its destinations. It may be used by several
// goroutines.
type Exporter struct {
	*Packer
	o       Options
	formats []*Format           // of the image, the pushed one first; empty if no image is made
	slots   *semaphore.Weighted // uploads
	outputs *outputs

	reached     chan struct{} // closed when what follows is set
	targets     []*Target
	unreachable error // why a target can't be pushed to
}

// A Result says what was delivered.
type Result struct {
	// Manifest describes the image's manifest or, of several platforms, the
	// index. It is empty when only file outputs were asked for, since no image
	// is assembled then; see [Destinations.Report].
	Manifest ocispec.Descriptor
	// Config is the digest of the image's config, which is Docker's image ID.
	// With several platforms it is "".
	Config digest.Digest
	// Layers are the image's layers, base first. They are empty with several platforms.
	Layers []registry.Layer
}

// New returns an exporter, and begins to reach every target. A target that can't be pushed
// to ends the build.
func New(o Options) *Exporter {
	e := &Exporter{o: o, slots: semaphore.NewWeighted(uploadsAtOnce), reached: make(chan struct{})}
	e.formats = e.o.formats()
	e.Packer = &Packer{
		store: o.Store, epoch: o.Epoch, maxUnpacked: o.MaxUnpacked,
		slots: semaphore.NewWeighted(int64(max(2, runtime.NumCPU()))), begin: e.begin,
	}
	e.outputs = &outputs{Packer: e.Packer, progress: o.Progress}
	o.Go(e.reach)
	return e
}

// reach reaches every target.
func (e *Exporter) reach(ctx context.Context) error {
	defer close(e.reached)
	for _, ref := range e.o.Tags {
		t, err := e.Target(ctx, ref)
		if err != nil {
			e.unreachable = err
			return err
		}
		if len(e.targets) > 0 {
			t.lender = e.targets[0].ref
		}
		e.targets = append(e.targets, t)
	}
	return nil
}

// Reached waits until every target has been reached, so that a build which can't be
// pushed runs no step. The error says why a target can't be pushed to.
func (e *Exporter) Reached(ctx context.Context) error {
	select {
	case <-e.reached:
		return e.unreachable
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Target returns another target.
func (e *Exporter) Target(ctx context.Context, ref string) (*Target, error) {
	push, err := e.o.Registry.Push(ctx, ref)
	if err != nil {
		return nil, err
	}
	t := &Target{ref: ref, push: push, slots: e.slots, learned: make(chan struct{})}
	e.o.Go(t.learn)
	return t, nil
}

// Formats returns the formats of the image, the pushed or reported one first. They are
// empty if no image is made.
func (e *Exporter) Formats() []*Format { return e.formats }

// Written reports whether part of an output is written that can't be taken back.
func (e *Exporter) Written() bool { return e.outputs.written.Load() }

// Check refuses a layer whose media type a format of the image doesn't have.
func (e *Exporter) Check(l *Layer) error {
	for _, f := range e.formats {
		if l.image == nil || f.recompresses(l.base.MediaType) {
			continue
		}
		if _, err := f.descriptor(l.base.Descriptor); err != nil {
			return err
		}
	}
	return nil
}

// Start begins to make the blobs of l, which is part of the result, and to send them to
// every target. It returns at once.
func (e *Exporter) Start(l *Layer) {
	l.wanted.Store(true)
	for _, f := range e.formats {
		e.StartBlob(l.In(f))
	}
}

// StartBlob begins to make bl. It is sent only if it is part of what is pushed. It returns at
// once.
func (e *Exporter) StartBlob(bl *Blob) {
	e.o.Go(func(ctx context.Context) error {
		if _, err := e.Pack(ctx, bl); err != nil || !e.pushes(bl) {
			return err
		}
		if err := e.Reached(ctx); err != nil {
			return err
		}
		for _, t := range e.targets {
			e.o.Go(func(ctx context.Context) error { return e.send(ctx, t, bl) })
		}
		return nil
	})
}

// pushes reports whether bl is part of what is pushed.
func (e *Exporter) pushes(bl *Blob) bool { return len(e.o.Tags) > 0 && bl.goes(e.formats[0]) }

// begin starts an upload of bl to the first target.
func (e *Exporter) begin(ctx context.Context, bl *Blob) *stream {
	if !e.pushes(bl) || e.Reached(ctx) != nil {
		return noStream()
	}
	return e.targets[0].stream(ctx)
}

// Deliver completes the image of the contents, one for each platform, and sends the
// result to all destinations. Manifests are last, when nothing else can fail.
func (e *Exporter) Deliver(ctx context.Context, contents []*Content) (Result, error) {
	var result Result
	var products []*product
	if err := e.Reached(ctx); err != nil {
		return result, err
	}
	if len(e.formats) > 0 {
		var err error
		if products, err = e.finish(ctx, contents); err != nil {
			return result, err
		}
		result.Manifest = products[0].top.Descriptor
		if img := products[0].images; len(img) == 1 {
			result.Config, result.Layers = img[0].config.Digest, img[0].layers
		}
	}
	for i := range e.o.Outputs {
		out := &e.o.Outputs[i]
		var p *product // stays nil if only files are written
		if k := slices.Index(e.formats, &out.Format); k >= 0 {
			p = products[k]
		}
		if err := e.outputs.write(ctx, out, contents, p); err != nil {
			return result, err
		}
	}
	for _, t := range e.targets {
		if err := e.pushBlobs(ctx, t, contents, products[0]); err != nil {
			return result, err
		}
	}
	for _, t := range e.targets {
		err := e.pushManifest(ctx, t, products[0])
		if t.forget(err) {
			if err = e.pushBlobs(ctx, t, contents, products[0]); err == nil {
				err = e.pushManifest(ctx, t, products[0])
			}
		}
		if err != nil {
			return result, err
		}
	}
	return result, nil
}

// finish waits for the layers and writes the image over them, in each format.
func (e *Exporter) finish(ctx context.Context, contents []*Content) (all []*product, err error) {
	v := e.o.Progress.Start("exporting to image")
	defer func() { v.Done(err) }()
	for _, c := range contents {
		for _, l := range c.Layers {
			e.Start(l)
		}
	}
	for _, f := range e.formats {
		for _, c := range contents {
			for _, l := range c.Layers {
				if _, err := e.Pack(ctx, l.In(f)); err != nil {
					return nil, err
				}
			}
		}
		p, err := e.produce(ctx, contents, f)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// pushBlobs sends the blobs that the registry of t still lacks.
func (e *Exporter) pushBlobs(ctx context.Context, t *Target, contents []*Content, p *product) (err error) {
	v := e.o.Progress.Start("pushing layers for " + t.ref)
	defer func() { v.Done(err) }()
	var blobs []*Blob
	for _, c := range contents {
		for _, l := range c.Layers {
			blobs = append(blobs, l.In(e.formats[0]))
		}
	}
	if err := e.sendAll(ctx, t, blobs); err != nil {
		return err
	}
	for _, img := range p.images {
		if err := t.sendDocument(ctx, img.config); err != nil {
			return err
		}
	}
	return nil
}

// pushManifest makes the reference of t name the image. The manifests that an index
// names are pushed before it.
func (e *Exporter) pushManifest(ctx context.Context, t *Target, p *product) (err error) {
	v := e.o.Progress.Start("pushing manifest for " + t.ref)
	defer func() { v.Done(err) }()
	if len(p.images) > 1 {
		for _, img := range p.images {
			if err := t.put(ctx, img.manifest, false); err != nil {
				return err
			}
		}
	}
	return t.put(ctx, p.top, !e.o.ByDigest)
}

// Push pushes an image of these blobs to t: what its registry lacks, the config, and the
// manifest last.
func (e *Exporter) Push(ctx context.Context, t *Target, blobs []*Blob, config, manifest Document) error {
	push := func() error {
		if err := e.sendAll(ctx, t, blobs); err != nil {
			return err
		}
		if err := t.sendDocument(ctx, config); err != nil {
			return err
		}
		return t.put(ctx, manifest, true)
	}
	err := push()
	if t.forget(err) {
		err = push()
	}
	return err
}

// sendAll returns when t has the blobs.
func (e *Exporter) sendAll(ctx context.Context, t *Target, blobs []*Blob) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, bl := range blobs {
		group.Go(func() error { return e.send(ctx, t, bl) })
	}
	return group.Wait()
}

// send returns when t has bl.
func (e *Exporter) send(ctx context.Context, t *Target, bl *Blob) error {
	made, err := e.Pack(ctx, bl)
	if err != nil {
		return err
	}
	return t.send(ctx, made.Blob, bl.lender(), func(ctx context.Context) (io.ReadCloser, error) { return e.Open(ctx, bl) })
}
