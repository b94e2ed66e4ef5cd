package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is an image for one platform, verified including its config. It is safe for
// concurrent use; its fields are not to be changed.
type Image struct {
	// Reference is the image's repository with the digest of its manifest:
	// what names it for ever. In a layout it is "": no registry knows it.
	Reference string
	// Digest is the digest of Raw.
	Digest digest.Digest
	// Root is the digest of what the reference named: of an index when the
	// platform was chosen from one, else equal to Digest.
	Root digest.Digest
	// MediaType is the media type of Raw.
	MediaType string
	// Raw is the manifest as the registry keeps it, Manifest is Raw decoded.
	Raw      []byte
	Manifest ocispec.Manifest
	// Config is the image's config as the registry keeps it.
	Config []byte
	// Layers are the layers of the manifest, base first.
	Layers []Layer

	keeper Keeper // that has the layers
}

// Blob opens a blob that is kept beside the image. The reader verifies size and digest.
// If they differ from d its last Read returns an error that is [ErrCorrupt] in place of
// io.EOF, so callers must not trust the bytes before io.EOF. The caller closes the
// reader; cancelling ctx ends it. It is for one goroutine.
func (i *Image) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return i.keeper.Blob(ctx, d)
}

// Document returns the image's manifest.
func (i *Image) Document() *Document {
	return &Document{Digest: i.Digest, MediaType: i.MediaType, Body: i.Raw}
}

// Layer is a layer's blob together with the digest of the tar in it.
type Layer struct {
	ocispec.Descriptor               // of the compressed blob
	DiffID             digest.Digest // of the uncompressed tar
}

// image reads the image whose manifest doc is.
func image(ctx context.Context, k Keeper, doc *Document) (*Image, error) {
	if t := doc.configType(); !IsImageConfig(t) {
		return nil, k.Fail(OpPullManifest, "", &artifactError{t})
	}
	im, err := artifact(ctx, k, doc)
	if err != nil {
		return nil, err
	}
	if im.Layers, err = Layers(&im.Manifest, im.Config); err != nil {
		return nil, k.Fail(OpPullConfig, im.Manifest.Config.Digest.String(), err)
	}
	return im, nil
}

// artifact reads the manifest doc and its config, whatever that is.
func artifact(ctx context.Context, k Keeper, doc *Document) (*Image, error) {
	im := &Image{
		Digest:    doc.Digest,
		MediaType: doc.MediaType,
		Raw:       doc.Body,
		keeper:    k,
	}
	if err := json.Unmarshal(doc.Body, &im.Manifest); err != nil {
		return nil, k.Fail(OpPullManifest, "", fmt.Errorf("read manifest: %w", err))
	}
	if err := checkManifest(&im.Manifest); err != nil {
		return nil, k.Fail(OpPullManifest, "", err)
	}
	config := im.Manifest.Config
	if config.Size > MaxConfig {
		return nil, k.Fail(OpPullConfig, config.Digest.String(), TooLarge(config.Size, MaxConfig))
	}
	var err error
	if im.Config, err = k.Config(ctx, config); err != nil {
		return nil, err
	}
	return im, nil
}

// checkManifest refuses descriptors that can't be true.
func checkManifest(m *ocispec.Manifest) error {
	if err := CheckDescriptor("config", m.Config); err != nil {
		return err
	}
	return CheckDescriptors("layer", m.Layers)
}

// artifactError says that a manifest is not of an image.
type artifactError struct{ configType string }

func (e *artifactError) Error() string {
	return fmt.Sprintf("not a container image: its config is of type %q", words.Line(e.configType))
}

// Layers joins a manifest's layers with its config's DiffIDs.
func Layers(m *ocispec.Manifest, config []byte) ([]Layer, error) {
	var read struct {
		RootFS struct {
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &read); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	ids := read.RootFS.DiffIDs
	if len(ids) != len(m.Layers) {
		return nil, fmt.Errorf("%w: the manifest has %d layers, the config %d (rootfs.diff_ids)",
			ErrCorrupt, len(m.Layers), len(ids))
	}
	joined := make([]Layer, len(ids))
	for i, id := range ids {
		if err := id.Validate(); err != nil {
			return nil, fmt.Errorf("%w: rootfs.diff_ids[%d] %q: %w", ErrCorrupt, i, words.Line(id.String()), err)
		}
		joined[i] = Layer{Descriptor: m.Layers[i], DiffID: id}
	}
	return joined, nil
}
