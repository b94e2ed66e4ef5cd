package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// annotationImageName is where containerd and docker look for the whole name of
// an image in a layout; org.opencontainers.image.ref.name holds the tag alone.
const annotationImageName = "io.containerd.image.name"

// Archive is an image, or an index of images, to be written as a file or a
// directory.
type Archive struct {
	// Refs are the names, [host/]repository[:tag] each. None is fine.
	Refs []string
	// Images are what is written: several only with an Index.
	Images []ArchivedImage
	// Index names the manifests of the images; nil writes one image without an
	// index over it. IndexType is its media type.
	Index     []byte
	IndexType string
	// Annotations are put beside the name in index.json.
	Annotations map[string]string
	// Open opens a layer's blob. Its bytes are verified while they are
	// written, and it is closed.
	Open func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// ArchivedImage is one image of an [Archive].
type ArchivedImage struct {
	// Manifest is the image's manifest, of type MediaType.
	Manifest  []byte
	MediaType string
	// Config is the image's config.
	Config []byte
	// Layers are those of the manifest, base first.
	Layers []Layer
}

// WriteOCI writes a tar of an OCI image layout (image-spec v1.0 and later). The
// same archive always makes the same bytes. After an error w holds no archive.
func WriteOCI(ctx context.Context, w io.Writer, a Archive) error {
	l, err := a.layout()
	if err != nil {
		return err
	}
	return l.writeTar(ctx, w)
}

// WriteDocker writes a tar that `docker load` reads, which is an OCI image layout
// with a manifest.json beside it, as `docker save` makes it. It can hold one image
// and no index. The same archive always makes the same bytes. After an error w
// holds no archive.
func WriteDocker(ctx context.Context, w io.Writer, a Archive) error {
	l, err := a.layout()
	if err != nil {
		return err
	}
	manifest, err := a.dockerManifest()
	if err != nil {
		return err
	}
	l.files = append(l.files, layoutFile{"manifest.json", manifest})
	return l.writeTar(ctx, w)
}

// layout is an OCI image layout about to be written.
type layout struct {
	entries []ocispec.Descriptor // of index.json
	blobs   []layoutBlob
	files   []layoutFile
}

type layoutBlob struct {
	ocispec.Descriptor
	open func(context.Context) (io.ReadCloser, error)
}

type layoutFile struct {
	name string
	body []byte
}

func (a *Archive) layout() (*layout, error) {
	if a.Index == nil && len(a.Images) != 1 {
		return nil, fmt.Errorf("write archive: %d images without an index", len(a.Images))
	}
	l := &layout{}
	seen := make(map[digest.Digest]bool)
	add := func(d ocispec.Descriptor, open func(context.Context) (io.ReadCloser, error)) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			l.blobs = append(l.blobs, layoutBlob{d, open})
		}
	}
	var root ocispec.Descriptor
	for _, im := range a.Images {
		for _, layer := range im.Layers {
			if err := layer.Digest.Validate(); err != nil {
				return nil, fmt.Errorf("write archive: layer %q: %w", layer.Digest, err)
			}
			add(layer.Descriptor, func(ctx context.Context) (io.ReadCloser, error) { return a.Open(ctx, layer.Descriptor) })
		}
		add(describe("", im.Config), bytesOpener(im.Config))
		root = describe(im.MediaType, im.Manifest)
		add(root, bytesOpener(im.Manifest))
		var err error
		if root.Platform, err = im.platform(); err != nil {
			return nil, err
		}
	}
	if a.Index != nil {
		root = describe(a.IndexType, a.Index)
		add(root, bytesOpener(a.Index))
	}
	root.Annotations = a.Annotations
	var err error
	if l.entries, err = namedEntries(root, a.Refs); err != nil {
		return nil, err
	}
	return l, l.addFiles()
}

// addFiles adds what a layout has beside its blobs.
func (l *layout) addFiles() error {
	index, err := encodeIndex(l.entries)
	l.files = []layoutFile{{ocispec.ImageIndexFile, index}, {ocispec.ImageLayoutFile, layoutMarker()}}
	return err
}

func describe(mediaType string, body []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
}

// platform returns what the config says the image is for, nil if nothing.
func (im *ArchivedImage) platform() (*ocispec.Platform, error) {
	var config ocispec.Platform
	if err := json.Unmarshal(im.Config, &config); err != nil {
		return nil, fmt.Errorf("write archive: read config: %w", err)
	}
	if config.OS == "" || config.Architecture == "" {
		return nil, nil //nolint:nilnil // it says nothing
	}
	return &config, nil
}

func bytesOpener(body []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

// namedEntries returns root once for each name, or once without any.
func namedEntries(root ocispec.Descriptor, refs []string) ([]ocispec.Descriptor, error) {
	if len(refs) == 0 {
		return []ocispec.Descriptor{root}, nil
	}
	entries := make([]ocispec.Descriptor, 0, len(refs))
	for _, ref := range refs {
		named, err := normalizeName(ref)
		if err != nil {
			return nil, err
		}
		entry := root
		entry.Annotations = maps.Clone(root.Annotations)
		if entry.Annotations == nil {
			entry.Annotations = make(map[string]string)
		}
		entry.Annotations[ocispec.AnnotationRefName] = named.Tag()
		entry.Annotations[annotationImageName] = named.String()
		entries = append(entries, entry)
	}
	return entries, nil
}

func normalizeName(ref string) (reference.NamedTagged, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return nil, fmt.Errorf("name %q: %w", ref, err)
	}
	tagged, ok := reference.TagNameOnly(named).(reference.NamedTagged)
	if !ok {
		return nil, fmt.Errorf("name %q: a tag is needed, not a digest", ref)
	}
	return tagged, nil
}

func encodeIndex(entries []ocispec.Descriptor) ([]byte, error) {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: entries,
	}
	body, err := json.Marshal(index)
	if err != nil {
		return nil, fmt.Errorf("write index.json: %w", err)
	}
	return body, nil
}

func layoutMarker() []byte {
	return []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)
}

// dockerManifest is the manifest.json of docker's image format.
func (a *Archive) dockerManifest() ([]byte, error) {
	if a.Index != nil || len(a.Images) != 1 {
		return nil, errors.New("write archive: docker's image format holds one image and no index")
	}
	im := a.Images[0]
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobPath(digest.FromBytes(im.Config)), RepoTags: []string{}, Layers: []string{}}
	for _, ref := range a.Refs {
		named, err := normalizeName(ref)
		if err != nil {
			return nil, err
		}
		entry.RepoTags = append(entry.RepoTags, reference.FamiliarString(named))
	}
	for _, layer := range im.Layers {
		entry.Layers = append(entry.Layers, blobPath(layer.Digest))
	}
	body, err := json.Marshal([]any{entry})
	if err != nil {
		return nil, fmt.Errorf("write manifest.json: %w", err)
	}
	return body, nil
}

// blobPath is where a layout keeps a blob; d has been validated.
func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// writeTar writes the files, then the blobs, so that a reader that streams knows
// what comes.
func (l *layout) writeTar(ctx context.Context, w io.Writer) error {
	tw := tar.NewWriter(w)
	for _, file := range l.files {
		if err := writeEntry(tw, file.name, bytes.NewReader(file.body), int64(len(file.body))); err != nil {
			return err
		}
	}
	made := make(map[string]bool)
	for _, blob := range l.blobs {
		dir := path.Dir(blobPath(blob.Digest))
		for _, one := range []string{path.Dir(dir), dir} {
			if made[one] {
				continue
			}
			made[one] = true
			h := &tar.Header{Typeflag: tar.TypeDir, Name: one + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}
			if err := tw.WriteHeader(h); err != nil {
				return fmt.Errorf("write archive: %w", err)
			}
		}
		err := blob.read(ctx, func(r io.Reader) error {
			return writeEntry(tw, blobPath(blob.Digest), r, blob.Size)
		})
		if err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func writeEntry(tw *tar.Writer, name string, r io.Reader, size int64) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write archive: %s: %w", name, err)
	}
	if _, err := io.Copy(tw, r); err != nil {
		return fmt.Errorf("write archive: %s: %w", name, err)
	}
	return nil
}

// read opens the blob for use, which must read all of it, and verifies it.
func (b *layoutBlob) read(ctx context.Context, use func(io.Reader) error) error {
	rc, err := b.open(ctx)
	if err != nil {
		return fmt.Errorf("write archive: blob %s: %w", b.Digest, err)
	}
	verifier := b.Digest.Verifier()
	// One byte too many shows as one too many, without reading on for ever.
	content := io.TeeReader(&contextReader{err: ctx.Err, inner: io.LimitReader(rc, b.Size)}, verifier)
	err = use(content)
	if err == nil {
		err = b.ended(rc, verifier)
	}
	return errors.Join(err, rc.Close())
}

// ended checks that rc is at its end and that its bytes were the promised ones.
func (b *layoutBlob) ended(rc io.Reader, verifier digest.Verifier) error {
	n, err := io.CopyN(io.Discard, rc, 1)
	switch {
	case n > 0:
		err = fmt.Errorf("%w: more than %d bytes", ErrCorrupt, b.Size)
	case !errors.Is(err, io.EOF):
	case !verifier.Verified():
		err = fmt.Errorf("%w: fewer than %d bytes, or others", ErrCorrupt, b.Size)
	default:
		return nil
	}
	return fmt.Errorf("write archive: blob %s: %w", b.Digest, err)
}

// contextReader ends when its context does.
type contextReader struct {
	err   func() error
	inner io.Reader
}

// Read implements io.Reader.
func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.err(); err != nil {
		return 0, err
	}
	return r.inner.Read(p)
}
