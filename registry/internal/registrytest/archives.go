package registrytest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TarLayer makes a real layer: one file, gzipped.
func TarLayer(t testing.TB, name, content string) (blob []byte, diffID digest.Digest) {
	t.Helper()
	var plain, packed bytes.Buffer
	tw := tar.NewWriter(&plain)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(tw, content); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	gz := gzip.NewWriter(&packed)
	_, err := gz.Write(plain.Bytes())
	if err := errors.Join(err, gz.Close()); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes(), digest.FromBytes(plain.Bytes())
}

// NewArchive makes an image of real layers, the first of them twice.
func NewArchive(t testing.TB, refs ...string) archive.Contents {
	t.Helper()
	blobs := make(map[digest.Digest][]byte)
	im := archive.Image{MediaType: ocispec.MediaTypeImageManifest}
	image := ocispec.Image{Platform: AMD64, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: im.MediaType}
	for _, name := range []string{"one", "two", "one"} {
		blob, id := TarLayer(t, name, strings.Repeat(name, 1000))
		d := Descriptor(ocispec.MediaTypeImageLayerGzip, blob)
		blobs[d.Digest] = blob
		im.Layers = append(im.Layers, oci.Layer{Descriptor: d, DiffID: id})
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, id)
		manifest.Layers = append(manifest.Layers, d)
	}
	im.Config = Encode(t, image)
	manifest.Config = Descriptor(ocispec.MediaTypeImageConfig, im.Config)
	im.Manifest = Encode(t, manifest)
	return archive.Contents{
		Refs: refs, Images: []archive.Image{im},
		Open: func(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(blobs[d.Digest])), nil
		},
	}
}

// Inspect reads a whole image by skopeo.
func Inspect(t *testing.T, source string) {
	t.Helper()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Log("skopeo is not installed: its part is left out")
		return
	}
	output, err := exec.CommandContext(t.Context(), skopeo, "--insecure-policy", "inspect", source).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo inspect %s: %v\n%s", source, err, output)
	}
	var seen struct{ Layers []string }
	if err := json.Unmarshal(output, &seen); err != nil || len(seen.Layers) != 3 {
		t.Errorf("skopeo inspect %s: %v\n%s", source, err, output)
	}
	target := "dir:" + t.TempDir()
	if output, err := exec.CommandContext(t.Context(), skopeo, "--insecure-policy", "copy", source, target).CombinedOutput(); err != nil {
		t.Errorf("skopeo copy %s: %v\n%s", source, err, output)
	}
}
