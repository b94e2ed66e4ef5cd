package source

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/bobbuild/bob/registry/archive"

	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image returns the image ref of a registry for p. No layer of it is fetched.
func (s *Sources) Image(ctx context.Context, ref string, p ocispec.Platform) (*Image, error) {
	return s.image(ctx, ref, p, func(ctx context.Context) (*registry.Image, error) { return s.Registry.Resolve(ctx, ref, p) })
}

// Layout returns the image l in a directory for p.
func (s *Sources) Layout(ctx context.Context, l *archive.LayoutImage, p ocispec.Platform) (*Image, error) {
	return s.image(ctx, l.String(), p, func(ctx context.Context) (*registry.Image, error) { return l.Resolve(ctx, p) })
}

func (s *Sources) image(ctx context.Context, name string, p ocispec.Platform, resolve func(context.Context) (*registry.Image, error)) (*Image, error) {
	key := imageName{name, platforms.FormatAll(p)}
	return s.images.Get(ctx, key, func(ctx context.Context) (img *Image, err error) {
		prefix := "[internal]"
		if s.Platforms {
			prefix = "[" + key.platform + " internal]"
		}
		v := s.Progress.Start(prefix + " load metadata for " + name)
		defer func() { v.Done(err) }()
		remote, err := resolve(ctx)
		if err != nil {
			return nil, err
		}
		return s.imageFrom(name, remote)
	})
}

// imageFrom returns the image of remote.
func (s *Sources) imageFrom(name string, remote *registry.Image) (*Image, error) {
	img := &Image{Image: remote}
	if err := json.Unmarshal(remote.Config, &img.Parsed); err != nil {
		return nil, fmt.Errorf("config of %s: %w", name, err)
	}
	var diffIDs []digest.Digest
	id := ""
	for _, l := range remote.Layers {
		diffIDs = append(diffIDs, l.DiffID)
		id = snapshot.StackID(id, l.DiffID)
	}
	img.Chain = identity.ChainID(diffIDs)
	img.RootFS = Later(id, func(ctx context.Context) (*snapshot.Snapshot, error) { return s.unpack(ctx, name, remote) })
	s.offer(remote)
	return img, nil
}

// offer tells the store where the layers of img are, in case it has to read files that
// unpack doesn't make present.
func (s *Sources) offer(img *registry.Image) {
	if s.Store == nil {
		return // nothing but configs is read
	}
	var layers []snapshot.Layer
	for _, l := range img.Layers {
		layers = append(layers, snapshot.Layer{Blob: l.Descriptor, DiffID: l.DiffID, Open: func(ctx context.Context) (io.ReadCloser, error) {
			return img.Blob(ctx, l.Descriptor)
		}})
	}
	s.Store.Offer(layers)
}

// unpack makes the files of img, which is called name, present. It doesn't fetch layers
// that the store has.
func (s *Sources) unpack(ctx context.Context, name string, img *registry.Image) (snap *snapshot.Snapshot, err error) {
	v := s.Progress.Start("FROM " + name + "@" + img.Digest.String())
	defer func() { v.Done(err) }()

	var layers []snapshot.Layer
	for _, l := range img.Layers {
		layers = append(layers, snapshot.Layer{
			Blob: l.Descriptor, DiffID: l.DiffID,
			Open:    func(ctx context.Context) (io.ReadCloser, error) { return OpenBlob(ctx, v, img, l.Descriptor) },
			Waiting: s.Progress.Waiting("FROM "+name, "unpacks the layer "+l.Digest.String()),
		})
	}
	return s.Store.Unpack(ctx, layers, s.Jobs)
}

// OpenBlob opens the blob d of img, and shows its bytes in v as they come. The caller
// closes it.
func OpenBlob(ctx context.Context, v *event.Vertex, img *registry.Image, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := img.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	return v.Count(rc, d.Digest.String(), d.Size), nil
}
