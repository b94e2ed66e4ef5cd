package registry_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/transfer"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestResolveArtifact finds a manifest with a config of its own kind, at a registry and
// in a layout, and images beside it; any other kind is refused.
func TestResolveArtifact(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, nil)
	const kind = "application/vnd.example.thing.v1+json"
	config, layer := []byte(`{"a":1}`), []byte("layer")
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, Config: registrytest.Descriptor(kind, config),
		Layers: []ocispec.Descriptor{registrytest.Descriptor(ocispec.MediaTypeImageLayer, layer)},
	}
	m.SchemaVersion = 2
	ref := host + "/thing:1"
	p, err := c.Push(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range [][]byte{config, layer} {
		if err := p.Blob(t.Context(), registrytest.Descriptor("", body), "", registrytest.Opener(body)); err != nil {
			t.Fatal(err)
		}
	}
	want := registrytest.PushDocument(t, c, ref, m.MediaType, registrytest.Encode(t, m))
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := transfer.Copy(t.Context(), c, ref, "oci:"+dir, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, resolve := range map[string]func(kind string) (*oci.Image, error){
		"registry": func(kind string) (*oci.Image, error) {
			return c.ResolveArtifact(t.Context(), ref, registrytest.AMD64, kind)
		},
		"layout": func(kind string) (*oci.Image, error) {
			return (&archive.LayoutImage{Dir: dir}).ResolveArtifact(t.Context(), registrytest.AMD64, kind)
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
		if got, err := registrytest.ReadBlob(t.Context(), im, im.Manifest.Layers[0]); err != nil || string(got) != string(layer) {
			t.Errorf("%s: layer %q, %v", name, got, err)
		}
		if _, err := resolve("application/vnd.example.other+json"); err == nil || errors.Is(err, oci.ErrNotFound) {
			t.Errorf("%s: another kind: %v", name, err)
		}
	}
	f := registrytest.NewFixture(t, registrytest.AMD64, 10)
	f.Push(t.Context(), t, c, host+"/image:1")
	if im, err := c.ResolveArtifact(t.Context(), host+"/image:1", registrytest.AMD64, kind); err != nil || len(im.Layers) != 1 {
		t.Errorf("an image: %+v, %v", im, err)
	}
}
