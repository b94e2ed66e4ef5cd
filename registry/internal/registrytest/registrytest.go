// Package registrytest has what the tests of registry and of the packages around it have in
// common: small images, clients that know no credentials, and registries that fail.
package registrytest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
	embedded "github.com/bobbuild/bob/registry/serve"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// AMD64 is the platform of the fixtures.
var AMD64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// Main runs the tests of a package, and returns the code to exit with.
func Main(m *testing.M) int {
	// httptest.Server.Close closes the connections of all clients, if only it finds them.
	http.DefaultTransport = struct{ http.RoundTripper }{http.DefaultTransport}
	return m.Run()
}

// Anonymous is a keychain without credentials: tests don't read the machine's.
type Anonymous struct{}

// Resolve implements authn.Keychain.
func (Anonymous) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

// NewClient returns a client without credentials that waits for nothing. change may
// change its options; nil doesn't.
func NewClient(t *testing.T, change func(*registry.Options)) *registry.Client {
	t.Helper()
	o := registry.Options{Keychain: Anonymous{}, Patience: patience.Policy{Clock: new(patiencetest.Clock)}, Notice: func(s string) { t.Log("notice:", s) }}
	if change != nil {
		change(&o)
	}
	return registry.New(o)
}

// Serve starts a server and returns its host.
func Serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// ServeEmbedded starts the embedded registry and returns its host.
func ServeEmbedded(t *testing.T) string {
	t.Helper()
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return Serve(t, h)
}

// Fixture is a small image.
type Fixture struct {
	Manifest  []byte
	MediaType string
	Config    []byte
	Layers    [][]byte
	Descs     []oci.Layer
}

// Descriptor describes a body.
func Descriptor(mediaType string, body []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
}

// NewFixture makes an image with random layers of the given sizes.
func NewFixture(t *testing.T, p ocispec.Platform, sizes ...int) *Fixture {
	t.Helper()
	f := &Fixture{MediaType: ocispec.MediaTypeImageManifest}
	image := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: f.MediaType,
		Layers:    []ocispec.Descriptor{},
	}
	for _, size := range sizes {
		body := make([]byte, size)
		_, _ = rand.Read(body)
		d := Descriptor(ocispec.MediaTypeImageLayerGzip, body)
		id := digest.FromBytes(append([]byte("diff"), body...))
		f.Layers = append(f.Layers, body)
		f.Descs = append(f.Descs, oci.Layer{Descriptor: d, DiffID: id})
		manifest.Layers = append(manifest.Layers, d)
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, id)
	}
	f.Config = Encode(t, image)
	manifest.Config = Descriptor(ocispec.MediaTypeImageConfig, f.Config)
	f.Manifest = Encode(t, manifest)
	return f
}

// Encode makes JSON of v.
func Encode(t testing.TB, v any) []byte {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// Opener opens a body.
func Opener(body []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

// Push pushes the fixture: its first layer as a stream, the others as blobs.
func (f *Fixture) Push(ctx context.Context, t *testing.T, c *registry.Client, ref string) {
	t.Helper()
	p, err := c.Push(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	for i, body := range f.Layers {
		if i == 0 {
			u, err := p.Stream(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(u, bytes.NewReader(body)); err != nil {
				t.Fatal(err)
			}
			if err := u.Commit(f.Descs[0].Digest); err != nil {
				t.Fatal(err)
			}
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := p.Blob(ctx, f.Descs[i].Descriptor, "", Opener(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Blob(ctx, Descriptor(ocispec.MediaTypeImageConfig, f.Config), "", Opener(f.Config)); err != nil {
		t.Fatal(err)
	}
	d, err := p.Manifest(ctx, f.MediaType, f.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromBytes(f.Manifest); d != want {
		t.Fatalf("pushed manifest %s, want %s", d, want)
	}
}

// Check compares what a reference resolves to with the fixture, layers included.
func (f *Fixture) Check(ctx context.Context, t *testing.T, c *registry.Client, ref string) *oci.Image {
	t.Helper()
	im, err := c.Resolve(ctx, ref, AMD64)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(im.Raw, f.Manifest) || !bytes.Equal(im.Config, f.Config) || len(im.Layers) != len(f.Layers) {
		t.Fatalf("resolved %s is another image: %s", ref, im.Raw)
	}
	for i, layer := range im.Layers {
		if layer.Digest != f.Descs[i].Digest || layer.DiffID != f.Descs[i].DiffID {
			t.Errorf("layer %d is %+v, want %+v", i, layer, f.Descs[i])
		}
		got, err := ReadBlob(ctx, im, layer.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, f.Layers[i]) {
			t.Errorf("layer %d has other bytes", i)
		}
	}
	return im
}

// ReadBlob reads a blob that is kept beside an image.
func ReadBlob(ctx context.Context, im *oci.Image, d ocispec.Descriptor) ([]byte, error) {
	r, err := im.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r)
	return body, errors.Join(err, r.Close())
}

// Request makes a request without the package registry.
func Request(t *testing.T, method, url, contentType string, content []byte) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// PushDocument pushes a manifest or an index and returns its digest.
func PushDocument(t *testing.T, c *registry.Client, ref, mediaType string, body []byte) digest.Digest {
	t.Helper()
	p, err := c.Push(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Manifest(t.Context(), mediaType, body)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
