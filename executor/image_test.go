package executor_test

import (
	"maps"
	"testing"

	"github.com/bobbuild/bob/executor"
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
		if got := executor.OCIMediaType(in); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

// TestLayerAnnotationsStay: eStargz and others keep facts about a layer beside it.
func TestLayerAnnotationsStay(t *testing.T) {
	t.Parallel()
	got := executor.LayerDescriptor(ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerGzip, Size: 5, Digest: "sha256:d", URLs: []string{"https://example.com/l"},
		Annotations: map[string]string{
			"containerd.io/snapshot/stargz/toc.digest": "sha256:t", "containerd.io/uncompressed": "sha256:u",
			"containerd.io/distribution.source.docker.io": "library/busybox", "buildkit/createdat": "today",
		},
	})
	want := map[string]string{"containerd.io/snapshot/stargz/toc.digest": "sha256:t"}
	if !maps.Equal(got.Annotations, want) || got.Size != 5 || got.Digest != "sha256:d" || got.URLs != nil {
		t.Errorf("got %+v, want the annotations %v", got, want)
	}
}
