package registry_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bobbuild/bob/registry/archive"

	"github.com/bobbuild/bob/registry/oci"

	"github.com/bobbuild/bob/registry/transfer"
)

// TestResolveArtifact finds a manifest with a config of its own kind, at a registry and
// in a layout, and images beside it; any other kind is refused.
func TestResolveArtifact(t *testing.T) {
	t.Parallel()
	host := serveEmbedded(t)
	c := newClient(t, nil)
	const kind = "application/vnd.example.thing.v1+json"
	config, layer := []byte(`{"a":1}`), []byte("layer")
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: descriptor(kind, config),
		Layers: []ocispec.Descriptor{descriptor(ocispec.MediaTypeImageLayer, layer)},
	}
	m.SchemaVersion = 2
	ref := host + "/thing:1"
	p, err := c.Push(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{config, layer} {
		if err := p.Blob(t.Context(), descriptor("", body), "", opener(body)); err != nil {
			t.Fatal(err)
		}
	}
	want := pushDocument(t, c, ref, m.MediaType, encode(t, m))
	amd64 := platforms.MustParse("linux/amd64")
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := transfer.Copy(t.Context(), c, ref, "oci:"+dir, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, resolve := range map[string]func(kind string) (*oci.Image, error){
		"registry": func(kind string) (*oci.Image, error) { return c.ResolveArtifact(t.Context(), ref, amd64, kind) },
		"layout": func(kind string) (*oci.Image, error) {
			return (&archive.LayoutImage{Dir: dir}).ResolveArtifact(t.Context(), amd64, kind)
		},
	} {
		im, err := resolve(kind)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if im.Digest != want || im.Root != want || string(im.Config) != string(config) || im.Layers != nil {
			t.Errorf("%s: %+v", name, im)
		}
		if got, err := readBlob(t.Context(), im, im.Manifest.Layers[0]); err != nil || string(got) != string(layer) {
			t.Errorf("%s: layer %q, %v", name, got, err)
		}
		if _, err := resolve("application/vnd.example.other+json"); err == nil || errors.Is(err, oci.ErrNotFound) {
			t.Errorf("%s: another kind: %v", name, err)
		}
	}
	f := newFixture(t, amd64, 10)
	f.push(t.Context(), t, c, host+"/image:1")
	if im, err := c.ResolveArtifact(t.Context(), host+"/image:1", amd64, kind); err != nil || len(im.Layers) != 1 {
		t.Errorf("an image: %+v, %v", im, err)
	}
}
