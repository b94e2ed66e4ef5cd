package executor

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

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
	key := imageKey{ref, platforms.FormatAll(p)}
	return once(b, b.images, key, func() (*baseImage, error) { return b.resolve(ctx, ref, p) })
}

func (b *build) resolve(ctx context.Context, ref string, p ocispec.Platform) (img *baseImage, err error) {
	v := b.progress.start("[internal] load metadata for " + ref)
	defer func() { v.done(err) }()

	remote, err := b.Registry.Resolve(ctx, ref, p)
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
	st.history = alignHistory(st.image.History, len(st.layers), st.image.Created)
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

// alignHistory returns h such that exactly n entries stand for a layer, as the
// image specification asks. Images squashed or made by other tools may break
// that rule: surplus entries are marked empty from the oldest on, and missing
// ones are added.
func alignHistory(h []ocispec.History, n int, created *time.Time) []ocispec.History {
	out := make([]ocispec.History, 0, len(h))
	layers := 0
	for _, e := range h {
		if layers == n {
			e.EmptyLayer = true
		}
		if !e.EmptyLayer {
			layers++
		}
		out = append(out, e)
	}
	for ; layers < n; layers++ {
		out = append(out, ocispec.History{Created: created, Comment: "layer without a history entry"})
	}
	return out
}

// fillCreated gives the history entries without a time one, as BuildKit does: a
// config instruction carries the time of the layer made before it in this
// build, one before the first such layer the time of that, and where there is
// no new layer at all the time of the base's last. Thus a build of nothing new
// says nothing new. It returns the image's own time, nil if no entry has one.
func fillCreated(h []ocispec.History) *time.Time {
	var created *time.Time
	gap := false
	for _, e := range h {
		if e.Created == nil {
			gap = true
			continue
		}
		created = e.Created
		if gap {
			break
		}
	}
	gap = false
	for i := range h {
		switch {
		case h[i].Created == nil:
			gap = true
			h[i].Created = created
		case gap:
			created = h[i].Created
		}
	}
	if len(h) == 0 {
		return nil
	}
	return h[len(h)-1].Created
}

// assemble returns the config and the manifest of the image that st is, whose
// layers must be complete.
func (b *build) assemble(st *state) (*assembled, error) {
	img := st.image
	img.History = append([]ocispec.History(nil), st.history...)
	img.Created = fillCreated(img.History)
	img.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Layers:    []ocispec.Descriptor{},
	}
	out := &assembled{}
	for _, l := range st.layers {
		desc := ocispec.Descriptor{MediaType: ociMediaType(l.blob.MediaType), Digest: l.blob.Digest, Size: l.blob.Size}
		manifest.Layers = append(manifest.Layers, desc)
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, l.diffID)
		out.layers = append(out.layers, registry.Layer{Descriptor: desc, DiffID: l.diffID})
	}
	var err error
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

// ociMediaType returns the OCI name of a layer media type. Docker's and OCI's
// name the same bytes, and registries refuse manifests that mix them.
func ociMediaType(mt string) string {
	switch mt {
	case "application/vnd.docker.image.rootfs.diff.tar.gzip":
		return ocispec.MediaTypeImageLayerGzip
	case "application/vnd.docker.image.rootfs.diff.tar.zstd":
		return ocispec.MediaTypeImageLayerZstd
	case "application/vnd.docker.image.rootfs.diff.tar":
		return ocispec.MediaTypeImageLayer
	default:
		return mt
	}
}
