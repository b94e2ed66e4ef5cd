package transfer_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/transfer"
	"github.com/containerd/platforms"
)

func TestInspect(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	d, host := newDiary(t)
	b := pushBundle(t, c, host+"/app:1")
	d.take()
	in, err := transfer.Inspect(t.Context(), c, host+"/app:1", transfer.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if in.Digest != b.root || in.Reference != host+"/app:1" || in.Index == nil || len(in.Index.Manifests) != 5 || in.Manifest != nil || !bytes.Equal(in.Raw, b.documents[b.root]) {
		t.Errorf("index: %+v", in)
	}
	arm := platforms.MustParse("linux/arm64")
	im, err := transfer.Inspect(t.Context(), c, host+"/app:1", transfer.InspectOptions{Platform: &arm})
	if err != nil {
		t.Fatal(err)
	}
	if im.Digest != in.Index.Manifests[1].Digest || len(im.Manifest.Layers) != 2 || !bytes.Equal(im.Config, b.blobs[im.Manifest.Config.Digest]) {
		t.Errorf("image: %+v", im)
	}
	for _, get := range d.take("GET ") {
		if strings.Contains(get, im.Manifest.Layers[0].Digest.String()) || strings.Contains(get, im.Manifest.Layers[1].Digest.String()) {
			t.Errorf("a layer was downloaded: %s", get)
		}
	}
	var artifact *transfer.Inspection
	inner, err := transfer.Inspect(t.Context(), c, host+"/app@"+in.Index.Manifests[3].Digest.String(), transfer.InspectOptions{})
	if err == nil {
		artifact, err = transfer.Inspect(t.Context(), c, host+"/app@"+inner.Index.Manifests[0].Digest.String(), transfer.InspectOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if artifact.Config != nil || artifact.Manifest.ArtifactType != "application/vnd.example.thing" {
		t.Errorf("artifact: %+v", artifact)
	}
	layout := "oci:" + t.TempDir()
	if _, err := transfer.Copy(t.Context(), c, host+"/app:1", layout, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	if in, err := transfer.Inspect(t.Context(), c, layout, transfer.InspectOptions{}); err != nil || in.Digest != b.root || in.Reference != layout {
		t.Errorf("layout: %+v, %v", in, err)
	}
}
