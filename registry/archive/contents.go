package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/bobbuild/bob/registry/oci"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Contents are an image, or an index of images, to be written as a file or a directory.
type Contents struct {
	// Refs are the names, each [host/]repository[:tag]. Refs may be empty.
	Refs []string
	// Images are the images to write. More than one needs an Index.
	Images []Image
	// Index names the manifests of the images; nil writes one image without an
	// index over it. IndexType is its media type.
	Index     []byte
	IndexType string
	// Annotations are put beside the name in index.json.
	Annotations map[string]string
	// Open opens a layer's blob. The writer verifies its bytes and closes it.
	Open func(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
}

// Image is one image of [Contents].
type Image struct {
	// Manifest is the image's manifest, of type MediaType.
	Manifest  []byte
	MediaType string
	// Config is the image's config.
	Config []byte
	// Layers are the layers of the manifest, base first.
	Layers []oci.Layer
}

// WriteOCI writes a tar of an OCI image layout (image-spec v1.0 and later). The same
// contents always make the same bytes. After an error w holds no archive.
func WriteOCI(ctx context.Context, w io.Writer, c Contents) error {
	l, err := c.layout()
	if err != nil {
		return err
	}
	return l.writeTar(ctx, w)
}

// WriteOCIDir writes an OCI image layout to a directory as [Layout.WriteDir] does.
func WriteOCIDir(ctx context.Context, dir string, c Contents) error {
	l, err := c.layout()
	if err != nil {
		return err
	}
	return l.WriteDir(ctx, dir)
}

// WriteDocker writes a tar that `docker load` reads, which is an OCI image layout with a
// manifest.json beside it, as `docker save` makes it. It can hold one image and no index.
// The same contents always make the same bytes. After an error w holds no archive.
func WriteDocker(ctx context.Context, w io.Writer, c Contents) error {
	l, err := c.layout()
	if err != nil {
		return err
	}
	manifest, err := c.dockerManifest()
	if err != nil {
		return err
	}
	return l.writeTar(ctx, w, file{dockerManifestFile, manifest})
}

// WriteDockerFile writes what [WriteDocker] writes to a file. The file appears complete
// or not at all.
func WriteDockerFile(ctx context.Context, name string, c Contents) error {
	return writeFile(name, func(w io.Writer) error { return WriteDocker(ctx, w, c) })
}

// layout returns the layout to write.
func (c *Contents) layout() (*Layout, error) {
	if c.Index == nil && len(c.Images) != 1 {
		return nil, fmt.Errorf("write archive: %d images without an index", len(c.Images))
	}
	l := &Layout{}
	seen := make(map[digest.Digest]bool)
	add := func(d ocispec.Descriptor, open func(context.Context) (io.ReadCloser, error)) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			l.Blobs = append(l.Blobs, Blob{d, open})
		}
	}
	var root ocispec.Descriptor
	for _, im := range c.Images {
		for _, layer := range im.Layers {
			if err := layer.Digest.Validate(); err != nil {
				return nil, fmt.Errorf("write archive: layer %q: %w", layer.Digest, err)
			}
			add(layer.Descriptor, func(ctx context.Context) (io.ReadCloser, error) { return c.Open(ctx, layer.Descriptor) })
		}
		add(describe("", im.Config), Bytes(im.Config))
		root = describe(im.MediaType, im.Manifest)
		add(root, Bytes(im.Manifest))
		var err error
		if root.Platform, err = im.platform(); err != nil {
			return nil, err
		}
	}
	if c.Index != nil {
		root = describe(c.IndexType, c.Index)
		add(root, Bytes(c.Index))
	}
	root.Annotations = c.Annotations
	var err error
	l.Entries, err = namedEntries(root, c.Refs)
	return l, err
}

func describe(mediaType string, body []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
}

// platform returns the platform that the config names, nil if it names no platform.
func (im *Image) platform() (*ocispec.Platform, error) {
	var config ocispec.Platform
	if err := json.Unmarshal(im.Config, &config); err != nil {
		return nil, fmt.Errorf("write archive: read config: %w", err)
	}
	if config.OS == "" || config.Architecture == "" {
		return nil, nil // it says nothing
	}
	return &config, nil
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

// dockerManifest is the manifest.json of docker's image format.
func (c *Contents) dockerManifest() ([]byte, error) {
	if c.Index != nil || len(c.Images) != 1 {
		return nil, errors.New("write archive: docker's image format holds one image and no index")
	}
	im := c.Images[0]
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobPath(digest.FromBytes(im.Config)), RepoTags: []string{}, Layers: []string{}}
	for _, ref := range c.Refs {
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
