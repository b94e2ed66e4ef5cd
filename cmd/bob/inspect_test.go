package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bobbuild/bob/cmd/bob/internal/inspected"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/serve"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushed pushes an image with a layer and an instruction that made none, and an
// index of it with an attestation. It returns both references.
func pushed(t *testing.T) (image, index string) {
	t.Helper()
	h, err := serve.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	client := registry.New(registry.Options{})
	put := func(ref, mediaType string, v any, blobs ...string) ocispec.Descriptor {
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		p, err := client.Push(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		for _, blob := range blobs {
			d := ocispec.Descriptor{Digest: digest.FromString(blob), Size: int64(len(blob))}
			if err := p.Blob(t.Context(), d, "", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(blob)), nil }); err != nil {
				t.Fatal(err)
			}
		}
		d, err := p.Manifest(t.Context(), mediaType, body)
		if err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(body))}
	}
	config := `{"os":"linux","architecture":"arm64","variant":"v8","created":"2024-05-06T07:08:09Z",` +
		`"config":{"Env":["A=b","C=\u001b[31m"],"Entrypoint":["/bin/x","-y"],"Cmd":["z"],"User":"u:g","WorkingDir":"/w",` +
		`"ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}},"Labels":{"l":"\u202em"}},"rootfs":{"type":"layers","diff_ids":["` +
		digest.FromString("diff").String() + `"]},"history":[{"created_by":"COPY f /"},{"created_by":"ENV A=b","empty_layer":true}]}`
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromString(config), Size: int64(len(config))},
		Layers: []ocispec.Descriptor{
			{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromString("layer"), Size: 5},
		},
		Annotations: map[string]string{"note": "one"},
	}
	image, index = host+"/app:1", host+"/app:index"
	d := put(image, ocispec.MediaTypeImageManifest, manifest, config, "layer")
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	attestation := d
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{
		"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": d.Digest.String(),
	}
	put(index, ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{d, attestation},
	})
	return image, index
}

func TestInspect(t *testing.T) {
	t.Parallel()
	image, index := pushed(t)
	inspect := func(args ...string) string {
		t.Helper()
		var stdout bytes.Buffer
		if err := run(t.Context(), append([]string{"inspect"}, args...), nil, &stdout, io.Discard); err != nil {
			t.Fatal(err)
		}
		return stdout.String()
	}
	text := strings.Join(strings.Fields(inspect(image)), " ")
	for _, want := range []string{
		"Reference " + image, "Platform linux/arm64/v8", "Created 2024-05-06T07:08:09Z", `Entrypoint ["/bin/x", "-y"]`, `Cmd ["z"]`,
		"User u:g", "Working dir /w", `Env A=b C=\x1b[31m`, "Ports 80/tcp", "Volumes /data", `Labels l=\u202em`, "Annotations note=one",
		"Layers (1, 5B) " + digest.FromString("layer").String() + " 5B " + ocispec.MediaTypeImageLayerGzip + " COPY f /",
		"History layer COPY f / - ENV A=b",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in %s", want, text)
		}
	}

	var one inspected.Image
	if err := json.Unmarshal([]byte(inspect("--platform", "linux/arm64", "--format", "json", index)), &one); err != nil {
		t.Fatal(err)
	}
	if one.Platform != "linux/arm64/v8" || one.Config.Labels["l"] != "\u202em" || len(one.Layers) != 1 || len(one.History) != 2 ||
		one.Layers[0].CreatedBy != "COPY f /" || one.Layers[0].DiffID != digest.FromString("diff") || one.Layers[0].Size != 5 {
		t.Errorf("%+v", one)
	}
	if raw := inspect("--raw", image); digest.FromString(raw) != one.Digest {
		t.Errorf("the raw manifest has the digest %s, want %s", digest.FromString(raw), one.Digest)
	}

	var all inspected.Image
	if err := json.Unmarshal([]byte(inspect("--format", "json", index)), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Manifests) != 2 || all.Manifests[0].Platform != "linux/arm64/v8" || all.Manifests[0].Digest != one.Digest || all.Config != nil {
		t.Errorf("%+v", all)
	}
	text = inspect(index)
	for _, want := range []string{one.Digest.String() + "  linux/arm64/v8\n", "attestation-manifest of " + one.Digest.String()} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}
