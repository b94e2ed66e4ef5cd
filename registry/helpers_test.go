package registry_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
	embedded "github.com/bobbuild/bob/registry/serve"

	"github.com/bobbuild/bob/registry/oci"
)

func TestMain(m *testing.M) {
	// httptest.Server.Close closes the connections of all clients, if only it finds them.
	http.DefaultTransport = struct{ http.RoundTripper }{http.DefaultTransport}
	os.Exit(m.Run())
}

var amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// anonymous is a keychain without credentials: tests don't read the machine's.
type anonymous struct{}

func (anonymous) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

// login is a keychain with one user for all.
type login struct{ user, password string }

func (l login) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: l.user, Password: l.password}, nil
}

func newClient(t *testing.T, change func(*registry.Options)) *registry.Client {
	t.Helper()
	o := registry.Options{Keychain: anonymous{}, Patience: patience.Policy{Clock: new(patiencetest.Clock)}, Notice: func(s string) { t.Log("notice:", s) }}
	if change != nil {
		change(&o)
	}
	return registry.New(o)
}

// serve starts a server and returns its host.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// serveEmbedded starts the embedded registry and returns its host.
func serveEmbedded(t *testing.T) string {
	t.Helper()
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, h)
}

// fixture is a small image.
type fixture struct {
	manifest  []byte
	mediaType string
	config    []byte
	layers    [][]byte
	descs     []oci.Layer
}

func descriptor(mediaType string, body []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
}

// newFixture makes an image with random layers of the given sizes.
func newFixture(t *testing.T, p ocispec.Platform, sizes ...int) *fixture {
	t.Helper()
	f := &fixture{mediaType: ocispec.MediaTypeImageManifest}
	image := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}}
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: f.mediaType,
		Layers:    []ocispec.Descriptor{},
	}
	for _, size := range sizes {
		body := make([]byte, size)
		_, _ = rand.Read(body)
		d := descriptor(ocispec.MediaTypeImageLayerGzip, body)
		id := digest.FromBytes(append([]byte("diff"), body...))
		f.layers = append(f.layers, body)
		f.descs = append(f.descs, oci.Layer{Descriptor: d, DiffID: id})
		manifest.Layers = append(manifest.Layers, d)
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, id)
	}
	f.config = encode(t, image)
	manifest.Config = descriptor(ocispec.MediaTypeImageConfig, f.config)
	f.manifest = encode(t, manifest)
	return f
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func opener(body []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

// push pushes the fixture: its first layer as a stream, the others as blobs.
func (f *fixture) push(ctx context.Context, t *testing.T, c *registry.Client, ref string) {
	t.Helper()
	p, err := c.Push(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	for i, body := range f.layers {
		if i == 0 {
			u, err := p.Stream(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(u, bytes.NewReader(body)); err != nil {
				t.Fatal(err)
			}
			if err := u.Commit(f.descs[0].Digest); err != nil {
				t.Fatal(err)
			}
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := p.Blob(ctx, f.descs[i].Descriptor, "", opener(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Blob(ctx, descriptor(ocispec.MediaTypeImageConfig, f.config), "", opener(f.config)); err != nil {
		t.Fatal(err)
	}
	d, err := p.Manifest(ctx, f.mediaType, f.manifest)
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromBytes(f.manifest); d != want {
		t.Fatalf("pushed manifest %s, want %s", d, want)
	}
}

// check compares what a reference resolves to with the fixture, layers included.
func (f *fixture) check(ctx context.Context, t *testing.T, c *registry.Client, ref string) *oci.Image {
	t.Helper()
	im, err := c.Resolve(ctx, ref, amd64)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(im.Raw, f.manifest) || !bytes.Equal(im.Config, f.config) || len(im.Layers) != len(f.layers) {
		t.Fatalf("resolved %s is another image: %s", ref, im.Raw)
	}
	for i, layer := range im.Layers {
		if layer.Digest != f.descs[i].Digest || layer.DiffID != f.descs[i].DiffID {
			t.Errorf("layer %d is %+v, want %+v", i, layer, f.descs[i])
		}
		got, err := readBlob(ctx, im, layer.Descriptor)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, f.layers[i]) {
			t.Errorf("layer %d has other bytes", i)
		}
	}
	return im
}

func readBlob(ctx context.Context, im *oci.Image, d ocispec.Descriptor) ([]byte, error) {
	r, err := im.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r)
	return body, errors.Join(err, r.Close())
}

func mustNotOpen(t *testing.T) func() (io.ReadCloser, error) {
	t.Helper()
	return func() (io.ReadCloser, error) {
		t.Error("blob opened although the registry has it")
		return nil, errors.New("not to be opened")
	}
}

func request(t *testing.T, method, url, contentType string, content []byte) (status int, answer string) {
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
