package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Format says how an image is written. The zero value is OCI media types with
// layers compressed by gzip.
type Format struct {
	// DockerTypes gives documents and layers the media types of Docker's image manifest
	// version 2, schema 2, in place of OCI's. All types of an image are of one family,
	// including the layers of its base.
	DockerTypes bool
	// Compression is how the layers that the build makes are compressed.
	Compression snapshot.Compression
	// Recompress also compresses layers of the base that have another compression.
	// Otherwise they stay as they are.
	Recompress bool
	// Annotations are put on the documents. Annotations of the base are dropped.
	Annotations []Annotation
}

// An Annotation is an annotation of the OCI image specification, on a document of an
// image or on its descriptor.
type Annotation struct {
	On         AnnotationPlace
	Platform   *ocispec.Platform // normalised; nil for all platforms of the image
	Key, Value string
}

// An AnnotationPlace is what an [Annotation] is put on. "" is OnManifest.
type AnnotationPlace string

// The places of annotations, named as in docker build. A descriptor names a manifest in
// its index, or an index in the index.json of a layout.
const (
	OnManifest           AnnotationPlace = "manifest"
	OnManifestDescriptor AnnotationPlace = "manifest-descriptor"
	OnIndex              AnnotationPlace = "index"
	OnIndexDescriptor    AnnotationPlace = "index-descriptor"
)

// check refuses a format that no image with the given platforms can have.
func (f *Format) check(targets []ocispec.Platform) error {
	if highest := f.Compression.Method.Levels(); f.Compression.Level != nil && (*f.Compression.Level < 0 || *f.Compression.Level > highest) {
		if highest == 0 {
			return fmt.Errorf("compression level %d: %s has no levels", *f.Compression.Level, f.Compression.Method)
		}
		return fmt.Errorf("compression level %d: want 0 to %d", *f.Compression.Level, highest)
	}
	switch f.Compression.Method {
	case "", snapshot.Gzip, snapshot.Zstd, snapshot.Uncompressed:
	default:
		return fmt.Errorf("compression %s: want gzip, zstd or uncompressed", f.Compression.Method)
	}
	if f.DockerTypes && f.Compression.Method == snapshot.Zstd {
		return fmt.Errorf("compression by zstd: %w", errDockerZstd)
	}
	for _, a := range f.Annotations {
		index := a.On == OnIndex || a.On == OnIndexDescriptor
		switch {
		case f.DockerTypes && a.On != OnManifest && a.On != "":
			return fmt.Errorf("annotation %s of the %s: Docker's media types have no place for it: use OCI media types", a.Key, a.On)
		case index && len(targets) == 1:
			return fmt.Errorf("annotation %s of the %s: an image for one platform has no index: annotate the manifest", a.Key, a.On)
		case index && a.Platform != nil:
			return fmt.Errorf("annotation %s of the %s: an index is for all platforms, not for %s", a.Key, a.On, platforms.Format(*a.Platform))
		case a.Platform != nil && !includes(targets, *a.Platform):
			return fmt.Errorf("annotation %s: platform %s is not built: name it with --platform too", a.Key, platforms.Format(*a.Platform))
		}
	}
	return nil
}

var errDockerZstd = errors.New("no media type of Docker's names that: use OCI media types, or compress all layers by gzip with force-compression")

func includes(all []ocispec.Platform, p ocispec.Platform) bool {
	return slices.ContainsFunc(all, func(q ocispec.Platform) bool { return platforms.FormatAll(q) == platforms.FormatAll(p) })
}

// annotations returns the annotations on place for p; for the places of an index p
// doesn't matter. An annotation for p alone takes precedence over one for all
// platforms. It returns nil if there is no annotation.
func (f *Format) annotations(place AnnotationPlace, p ocispec.Platform) map[string]string {
	var out map[string]string
	add := func(particular bool) {
		for _, a := range f.Annotations {
			on := a.On
			if on == "" {
				on = OnManifest
			}
			if on != place || particular != (a.Platform != nil) ||
				particular && platforms.FormatAll(*a.Platform) != platforms.FormatAll(p) {
				continue
			}
			if out == nil {
				out = make(map[string]string)
			}
			out[a.Key] = a.Value
		}
	}
	add(false)
	add(true)
	return out
}

// Media types of Docker's image manifest version 2, schema 2.
const (
	dockerManifest   = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList       = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig     = "application/vnd.docker.container.image.v1+json"
	dockerLayer      = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip  = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZstd  = "application/vnd.docker.image.rootfs.diff.tar.zstd" // of no specification
	dockerForeign    = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	dockerForeignGz  = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
	ociForeignPrefix = "application/vnd.oci.image.layer.nondistributable.v1.tar"
)

// mediaTypes returns the media types of f for the documents of an image.
func (f *Format) mediaTypes() (index, manifest, config string) {
	if f.DockerTypes {
		return dockerList, dockerManifest, dockerConfig
	}
	return ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig
}

// descriptor returns the descriptor of the blob d in a manifest of f. Docker's and
// OCI's media types name the same bytes, and registries refuse manifests that mix them.
// A foreign layer becomes an ordinary layer, since its blob lies beside the image.
// Annotations of the base's layers stay if the family has annotations.
func (f *Format) descriptor(d ocispec.Descriptor) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: OCIMediaType(d.MediaType), Digest: d.Digest, Size: d.Size}
	if f.DockerTypes {
		switch desc.MediaType {
		case ocispec.MediaTypeImageLayer:
			desc.MediaType = dockerLayer
		case ocispec.MediaTypeImageLayerGzip:
			desc.MediaType = dockerLayerGzip
		case ocispec.MediaTypeImageLayerZstd:
			return desc, fmt.Errorf("layer %s is compressed by zstd: %w", d.Digest, errDockerZstd)
		default:
			return desc, fmt.Errorf("layer %s: Docker's media types have no name for %s: use OCI media types", d.Digest, d.MediaType)
		}
		return desc, nil
	}
	for key, value := range d.Annotations {
		if internalAnnotation(key) {
			continue
		}
		if desc.Annotations == nil {
			desc.Annotations = make(map[string]string)
		}
		desc.Annotations[key] = value
	}
	return desc, nil
}

// internalAnnotation reports whether containerd and BuildKit keep key for themselves.
func internalAnnotation(key string) bool {
	return key == "containerd.io/uncompressed" || key == "buildkit/createdat" ||
		strings.HasPrefix(key, "containerd.io/distribution.source.")
}

// OCIMediaType returns the OCI name of a layer media type.
func OCIMediaType(mt string) string {
	switch mt {
	case dockerLayerGzip, dockerForeignGz, ociForeignPrefix + "+gzip":
		return ocispec.MediaTypeImageLayerGzip
	case dockerLayerZstd, ociForeignPrefix + "+zstd":
		return ocispec.MediaTypeImageLayerZstd
	case dockerLayer, dockerForeign, ociForeignPrefix:
		return ocispec.MediaTypeImageLayer
	default:
		return mt
	}
}

// recompresses reports whether a layer of a base that has the media type mt is
// compressed anew.
func (f *Format) recompresses(mt string) bool {
	switch mt = OCIMediaType(mt); mt {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd:
		return f.Recompress && mt != LayerMediaType(f.Compression.Method)
	}
	return false
}

// LayerMediaType returns the OCI name of a layer that is compressed by m.
func LayerMediaType(m snapshot.Method) string {
	switch m {
	case snapshot.Zstd:
		return ocispec.MediaTypeImageLayerZstd
	case snapshot.Uncompressed:
		return ocispec.MediaTypeImageLayer
	case snapshot.Gzip, "":
	}
	return ocispec.MediaTypeImageLayerGzip
}
