package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A baseImage is an image that the build reads, resolved but not fetched.
type baseImage struct {
	remote *registry.Image
	state  *state
}

type imageKey struct{ ref, platform string }

// image returns the image ref for p.
func (b *build) image(ctx context.Context, ref string, p ocispec.Platform) (*baseImage, error) {
	return b.imageOf(ctx, ref, p, func(ctx context.Context) (*registry.Image, error) { return b.Registry.Resolve(ctx, ref, p) })
}

// ask has the image ref resolved for p, whoever waits for it. They get the error.
func (b *build) ask(ref string, p ocispec.Platform) {
	b.group.Go(func() error {
		_, _ = b.image(b.life, ref, p)
		return nil
	})
}

// imageOf returns the image called name that resolve finds.
func (b *build) imageOf(ctx context.Context, name string, p ocispec.Platform, resolve func(context.Context) (*registry.Image, error)) (*baseImage, error) {
	key := imageKey{name, platforms.FormatAll(p)}
	return b.images.Get(ctx, key, func(ctx context.Context) (*baseImage, error) { return b.resolve(ctx, name, p, resolve) })
}

func (b *build) resolve(ctx context.Context, ref string, p ocispec.Platform, resolve func(context.Context) (*registry.Image, error)) (img *baseImage, err error) {
	prefix := "[internal]"
	if len(b.plans) > 1 {
		prefix = "[" + platforms.FormatAll(p) + " internal]"
	}
	v := b.progress.Start(prefix + " load metadata for " + ref)
	defer func() { v.Done(err) }()

	remote, err := resolve(ctx)
	if err != nil {
		return nil, err
	}
	st := &state{from: remote.Digest}
	if err := json.Unmarshal(remote.Config, &st.image); err != nil {
		return nil, fmt.Errorf("config of %s: %w", ref, err)
	}
	var diffIDs []digest.Digest
	id := ""
	for _, l := range remote.Layers {
		st.layers = append(st.layers, knownLayer(l, remote))
		diffIDs = append(diffIDs, l.DiffID)
		id = snapshot.StackID(id, l.DiffID)
	}
	st.base, st.history = st.image.History, st.image.History
	st.key = newKey("image").str(identity.ChainID(diffIDs).String()).sum()
	st.rootfs = &rootfs{id: id, make: func(ctx context.Context) (*snapshot.Snapshot, error) { return b.unpack(ctx, ref, remote) }}
	b.offer(remote)
	return &baseImage{remote: remote, state: st}, nil
}

// offer tells the store where the layers of img are, should it have to read files of
// it that unpack doesn't make present.
func (b *build) offer(img *registry.Image) {
	if b.Store == nil {
		return // nothing but configs is read
	}
	var layers []snapshot.Layer
	for _, l := range img.Layers {
		layers = append(layers, snapshot.Layer{Blob: l.Descriptor, DiffID: l.DiffID, Open: func(ctx context.Context) (io.ReadCloser, error) {
			return img.Blob(ctx, l.Descriptor)
		}})
	}
	b.Store.Offer(layers)
}

// shown returns a function that opens the blob d of img, and shows its bytes in v as they
// come.
func shown(v *event.Vertex, img *registry.Image, d ocispec.Descriptor) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		rc, err := img.Blob(ctx, d)
		if err != nil {
			return nil, err
		}
		return v.Count(rc, d.Digest.String(), d.Size), nil
	}
}

// unpack makes the image's files present. Layers that the store has cost
// nothing.
func (b *build) unpack(ctx context.Context, ref string, img *registry.Image) (snap *snapshot.Snapshot, err error) {
	v := b.progress.Start("FROM " + ref + "@" + img.Digest.String())
	defer func() { v.Done(err) }()

	var layers []snapshot.Layer
	for _, l := range img.Layers {
		layers = append(layers, snapshot.Layer{
			Blob: l.Descriptor, DiffID: l.DiffID, Open: shown(v, img, l.Descriptor),
			Waiting: b.progress.Waiting("FROM "+ref, "unpacks the layer "+l.Digest.String()),
		})
	}
	return b.Store.Unpack(ctx, layers, b.opts.Jobs)
}
