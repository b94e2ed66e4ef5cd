package image_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestMediaTypesAreNotMixed(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"application/vnd.docker.image.rootfs.diff.tar.gzip": ocispec.MediaTypeImageLayerGzip,
		"application/vnd.docker.image.rootfs.diff.tar":      ocispec.MediaTypeImageLayer,
		ocispec.MediaTypeImageLayerZstd:                     ocispec.MediaTypeImageLayerZstd,
		// Foreign layers lie beside the image like all others.
		"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":    ocispec.MediaTypeImageLayerGzip,
		"application/vnd.oci.image.layer.nondistributable.v1.tar":      ocispec.MediaTypeImageLayer,
		"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": ocispec.MediaTypeImageLayerZstd,
	} {
		if got := image.OCIMediaType(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
		docker, err := image.LayerDescriptor(image.Format{DockerTypes: true}, ocispec.Descriptor{MediaType: in, Digest: "sha256:d"})
		if want == ocispec.MediaTypeImageLayerZstd {
			if err == nil || !strings.Contains(err.Error(), "use OCI media types") {
				t.Errorf("%s as Docker's: %v", in, err)
			}
		} else if err != nil || image.OCIMediaType(docker.MediaType) != want || !strings.HasPrefix(docker.MediaType, "application/vnd.docker.image.rootfs.diff.") {
			t.Errorf("%s became %s, %v", in, docker.MediaType, err)
		}
	}
	if _, err := image.LayerDescriptor(image.Format{DockerTypes: true}, ocispec.Descriptor{MediaType: "application/x-mystery"}); err == nil {
		t.Error("Docker's types have a name for a mystery")
	}
}

// TestLayerAnnotationsStay: eStargz and others keep facts about a layer beside it.
func TestLayerAnnotationsStay(t *testing.T) {
	t.Parallel()
	layer := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerGzip, Size: 5, Digest: "sha256:d", URLs: []string{"https://example.com/l"},
		Annotations: map[string]string{
			"containerd.io/snapshot/stargz/toc.digest": "sha256:t", "containerd.io/uncompressed": "sha256:u",
			"containerd.io/distribution.source.docker.io": "library/busybox", "buildkit/createdat": "today",
		},
	}
	got, err := image.LayerDescriptor(image.Format{}, layer)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"containerd.io/snapshot/stargz/toc.digest": "sha256:t"}
	if !maps.Equal(got.Annotations, want) || got.Size != 5 || got.Digest != "sha256:d" || got.URLs != nil {
		t.Errorf("got %+v, want the annotations %v", got, want)
	}
	got, err = image.LayerDescriptor(image.Format{DockerTypes: true}, layer)
	if err != nil || got.Annotations != nil {
		t.Errorf("%v; Docker's manifests have no annotations, got %v", err, got.Annotations)
	}
}
