package registry_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	embedded "github.com/bobbuild/bob/registry/serve"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// benchmarkPush sends 64 MiB blobs to the embedded registry.
func benchmarkPush(b *testing.B, send func(p *registry.Push, d ocispec.Descriptor, content []byte) error) {
	h, err := embedded.Handler(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	content := make([]byte, 64<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	c := registry.New(registry.Options{Keychain: registrytest.Anonymous{}})
	p, err := c.Push(b.Context(), strings.TrimPrefix(srv.URL, "http://")+"/app:1")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		content[0]++
		content[1]++ // another blob than the last
		if err := send(p, registrytest.Descriptor("", content), content); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStream(b *testing.B) {
	benchmarkPush(b, func(p *registry.Push, d ocispec.Descriptor, content []byte) error {
		u, err := p.Stream(b.Context())
		if err != nil {
			return err
		}
		if _, err := io.CopyBuffer(u, struct{ io.Reader }{bytes.NewReader(content)}, make([]byte, 32<<10)); err != nil {
			return err
		}
		return u.Commit(d.Digest)
	})
}

func BenchmarkBlob(b *testing.B) {
	benchmarkPush(b, func(p *registry.Push, d ocispec.Descriptor, content []byte) error {
		return p.Blob(b.Context(), d, "", registrytest.Opener(content))
	})
}

func BenchmarkPull(b *testing.B) {
	content := make([]byte, 64<<20)
	d := digest.FromBytes(content)
	b.SetBytes(int64(len(content)))
	h, err := embedded.Handler(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	srv := httptest.NewServer(h)
	defer srv.Close()
	ref := strings.TrimPrefix(srv.URL, "http://") + "/app:1"
	c := registry.New(registry.Options{Keychain: registrytest.Anonymous{}})
	p, err := c.Push(b.Context(), ref)
	if err != nil {
		b.Fatal(err)
	}
	layer := ocispec.Descriptor{Digest: d, Size: int64(len(content))}
	if err := p.Blob(b.Context(), layer, "", registrytest.Opener(content)); err != nil {
		b.Fatal(err)
	}
	config := []byte(`{"os":"linux","architecture":"amd64"}`)
	if err := p.Blob(b.Context(), registrytest.Descriptor("", config), "", registrytest.Opener(config)); err != nil {
		b.Fatal(err)
	}
	manifest := []byte(`{"schemaVersion":2,"layers":[],"config":{"size":37,"digest":"` + digest.FromBytes(config).String() + `"}}`)
	if _, err := p.Manifest(b.Context(), ocispec.MediaTypeImageManifest, manifest); err != nil {
		b.Fatal(err)
	}
	im, err := c.Resolve(b.Context(), ref, registrytest.AMD64)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r, err := im.Blob(b.Context(), layer)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
		_ = r.Close()
	}
}
