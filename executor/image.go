package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A baseImage is an image that the build reads, resolved but not fetched.
type baseImage struct {
	remote *registry.Image
	state  *state
}

type imageKey struct{ ref, platform string }

// image returns the promise of the image ref for p.
func (b *build) image(ctx context.Context, ref string, p ocispec.Platform) *promise[*baseImage] {
	return b.imageOf(ref, p, func() (*registry.Image, error) { return b.Registry.Resolve(ctx, ref, p) })
}

// imageOf returns the promise of the image called name that resolve finds.
func (b *build) imageOf(name string, p ocispec.Platform, resolve func() (*registry.Image, error)) *promise[*baseImage] {
	key := imageKey{name, platforms.FormatAll(p)}
	return once(b, b.images, key, func() (*baseImage, error) { return b.resolve(name, resolve) })
}

func (b *build) resolve(ref string, resolve func() (*registry.Image, error)) (img *baseImage, err error) {
	v := b.progress.start("[internal] load metadata for " + ref)
	defer func() { v.done(err) }()

	remote, err := resolve()
	if err != nil {
		return nil, err
	}
	st := &state{}
	if err := json.Unmarshal(remote.Config, &st.image); err != nil {
		return nil, fmt.Errorf("config of %s: %w", ref, err)
	}
	var diffIDs []digest.Digest
	for _, l := range remote.Layers {
		st.layers = append(st.layers, knownLayer(l, remote))
		diffIDs = append(diffIDs, l.DiffID)
	}
	st.base, st.history = st.image.History, st.image.History
	st.key = newKey("image").str(identity.ChainID(diffIDs).String()).sum()
	st.rootfs = &rootfs{make: func(ctx context.Context) (*snapshot.Snapshot, error) { return b.unpack(ctx, ref, remote) }}
	return &baseImage{remote: remote, state: st}, nil
}

// unpack makes the image's files present. Layers that the store has cost
// nothing.
func (b *build) unpack(ctx context.Context, ref string, img *registry.Image) (snap *snapshot.Snapshot, err error) {
	v := b.progress.start("FROM " + ref + "@" + img.Digest.String())
	defer func() { v.done(err) }()

	var layers []snapshot.Layer
	for _, l := range img.Layers {
		layers = append(layers, snapshot.Layer{Blob: l.Descriptor, DiffID: l.DiffID, Open: v.download(img, l.Descriptor)})
	}
	return b.Store.Unpack(ctx, layers, b.opts.Jobs)
}

// assemble returns the config and the manifest of the image that st is, whose
// layers must be complete.
func (b *build) assemble(st *state) (*assembled, error) {
	img := st.image
	history := st.history
	if st.missing != nil {
		history = append(slices.Clip(history), *st.missing)
	}
	img.History = completeHistory(history, len(st.layers))
	if b.plan.Epoch != nil {
		clampHistory(img.History, st.base, *b.plan.Epoch)
	}
	img.Created = lastCreated(img.History)
	img.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Layers:    []ocispec.Descriptor{},
	}
	out := &assembled{}
	for _, l := range st.layers {
		desc := layerDescriptor(l.blob)
		manifest.Layers = append(manifest.Layers, desc)
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, l.diffID)
		out.layers = append(out.layers, registry.Layer{Descriptor: desc, DiffID: l.diffID})
	}
	var err error
	if manifest.Annotations, err = b.inputs(); err != nil {
		return nil, err
	}
	if out.config, err = json.Marshal(img); err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	manifest.Config = ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageConfig,
		Digest:    digest.FromBytes(out.config),
		Size:      int64(len(out.config)),
	}
	if out.manifest, err = json.MarshalIndent(manifest, "", "  "); err != nil {
		return nil, fmt.Errorf("image manifest: %w", err)
	}
	out.configDesc = manifest.Config
	out.desc = ocispec.Descriptor{
		MediaType: manifest.MediaType,
		Digest:    digest.FromBytes(out.manifest),
		Size:      int64(len(out.manifest)),
	}
	return out, nil
}

// assembled is a finished image: the documents as they are sent.
type assembled struct {
	config, manifest []byte
	configDesc, desc ocispec.Descriptor
	layers           []registry.Layer
}

// layerDescriptor returns how a manifest of ours names the blob d. Docker's and
// OCI's media types name the same bytes, and registries refuse manifests that mix
// them; a layer that others were to fetch elsewhere is a layer like any other, as
// it lies beside the image. Annotations of the base's layers stay.
func layerDescriptor(d ocispec.Descriptor) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: ociMediaType(d.MediaType), Digest: d.Digest, Size: d.Size}
	for key, value := range d.Annotations {
		if internalAnnotation(key) {
			continue
		}
		if desc.Annotations == nil {
			desc.Annotations = make(map[string]string)
		}
		desc.Annotations[key] = value
	}
	return desc
}

// internalAnnotation reports whether key is one that containerd and BuildKit keep
// for themselves.
func internalAnnotation(key string) bool {
	return key == "containerd.io/uncompressed" || key == "buildkit/createdat" ||
		strings.HasPrefix(key, "containerd.io/distribution.source.")
}

// ociMediaType returns the OCI name of a layer media type.
func ociMediaType(mt string) string {
	switch mt {
	case "application/vnd.docker.image.rootfs.diff.tar.gzip",
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip":
		return ocispec.MediaTypeImageLayerGzip
	case "application/vnd.docker.image.rootfs.diff.tar.zstd",
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd":
		return ocispec.MediaTypeImageLayerZstd
	case "application/vnd.docker.image.rootfs.diff.tar",
		"application/vnd.docker.image.rootfs.foreign.diff.tar",
		"application/vnd.oci.image.layer.nondistributable.v1.tar":
		return ocispec.MediaTypeImageLayer
	default:
		return mt
	}
}
