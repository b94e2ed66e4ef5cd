package archive_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestResolveLayout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	img, err := random.Image(100, 2)
	if err != nil {
		t.Fatal(err)
	}
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "v1"})); err != nil {
		t.Fatal(err)
	}
	hash, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	want := digest.Digest(hash.String())
	for _, l := range []archive.LayoutImage{{Dir: dir, Tag: "v1"}, {Dir: dir, Digest: want}, {Dir: dir}} {
		im, err := l.Resolve(t.Context(), registrytest.AMD64)
		if err != nil {
			t.Fatalf("%s: %v", l.String(), err)
		}
		if im.Digest != want || len(im.Layers) != 2 {
			t.Errorf("%s: got %s with %d layers", l.String(), im.Digest, len(im.Layers))
		}
	}
	for _, l := range []archive.LayoutImage{
		{Dir: dir, Tag: "v2"},
		{Dir: dir, Digest: digest.FromString("x")},
		{Dir: filepath.Join(dir, "nowhere")},
	} {
		if _, err := l.Resolve(t.Context(), registrytest.AMD64); err == nil {
			t.Errorf("%s was found", l.String())
		}
	}
	im, err := (&archive.LayoutImage{Dir: dir, Tag: "v1"}).Resolve(t.Context(), registrytest.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	blob := im.Layers[0].Descriptor
	file := filepath.Join(dir, "blobs", "sha256", blob.Digest.Encoded())
	if err := os.WriteFile(file, make([]byte, blob.Size), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := im.Blob(t.Context(), blob)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, oci.ErrCorrupt) {
		t.Errorf("a changed blob gave error %v, want ErrCorrupt", err)
	}
	manifest := filepath.Join(dir, "blobs", "sha256", want.Encoded())
	if err := os.WriteFile(manifest, []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (&archive.LayoutImage{Dir: dir, Tag: "v1"}).Resolve(t.Context(), registrytest.AMD64); !errors.Is(err, oci.ErrCorrupt) {
		t.Errorf("a changed manifest gave error %v, want ErrCorrupt", err)
	}
}
