package transfer_test

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	embedded "github.com/bobbuild/bob/registry/serve"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// diary is a registry that notes what it is asked, in the order of its answers.
type diary struct {
	inner http.Handler

	mu      sync.Mutex
	entries []string // method and URL
}

func newDiary(t *testing.T) (d *diary, host string) {
	t.Helper()
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d = &diary{inner: h}
	return d, registrytest.Serve(t, d)
}

func (d *diary) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	entry := r.Method + " " + r.URL.RequestURI()
	d.inner.ServeHTTP(w, r)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, entry)
}

// take returns what was noted that begins with one of prefixes, and forgets all.
func (d *diary) take(prefixes ...string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken := slices.DeleteFunc(d.entries, func(entry string) bool {
		return !slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(entry, p) })
	})
	d.entries = nil
	return taken
}

// bundle is an index of all that an index may hold.
type bundle struct {
	root      digest.Digest
	documents map[digest.Digest][]byte
	blobs     map[digest.Digest][]byte
}

// pushBundle pushes an index of two images, the attestation of one, an index with
// an artifact, and a blob, as ref.
func pushBundle(t *testing.T, c *registry.Client, ref string) *bundle {
	t.Helper()
	b := &bundle{documents: make(map[digest.Digest][]byte), blobs: make(map[digest.Digest][]byte)}
	repo := ref[:strings.LastIndexByte(ref, ':')]
	push, err := c.Push(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	blob := func(mediaType string, body []byte) ocispec.Descriptor {
		d := registrytest.Descriptor(mediaType, body)
		b.blobs[d.Digest] = body
		if err := push.Blob(t.Context(), d, "", registrytest.Opener(body)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	document := func(mediaType string, v any) ocispec.Descriptor {
		d := registrytest.Descriptor(mediaType, registrytest.Encode(t, v))
		b.documents[d.Digest] = registrytest.Encode(t, v)
		registrytest.PushDocument(t, c, repo+"@"+d.Digest.String(), mediaType, b.documents[d.Digest])
		return d
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for i, name := range []string{"linux/amd64", "linux/arm64"} {
		p := platforms.MustParse(name)
		f := registrytest.NewFixture(t, p, 1000+i, 2_000_000+i)
		f.Push(t.Context(), t, c, ref)
		for i, layer := range f.Layers {
			b.blobs[f.Descs[i].Digest] = layer
		}
		b.blobs[digest.FromBytes(f.Config)] = f.Config
		d := registrytest.Descriptor(f.MediaType, f.Manifest)
		d.Platform = &p
		b.documents[d.Digest] = f.Manifest
		index.Manifests = append(index.Manifests, d)
	}
	attestation := document(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    blob(ocispec.MediaTypeImageConfig, []byte(`{"architecture":"unknown","os":"unknown"}`)),
		Layers:    []ocispec.Descriptor{blob("application/vnd.in-toto+json", []byte(`{"predicate":1}`))},
	})
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation.Annotations = map[string]string{
		"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": index.Manifests[0].Digest.String(),
	}
	artifact := document(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.thing",
		Config:       blob(ocispec.MediaTypeEmptyJSON, []byte(`{}`)),
		Layers:       []ocispec.Descriptor{blob("text/plain", []byte("thing"))},
		Subject:      &index.Manifests[0],
	})
	inner := document(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{artifact},
	})
	index.Manifests = append(index.Manifests, attestation, inner, blob("application/octet-stream", []byte("bare")))
	body := registrytest.Encode(t, index)
	b.root = registrytest.PushDocument(t, c, ref, index.MediaType, body)
	b.documents[b.root] = body
	return b
}

// check compares all that a repository has of the bundle.
func (b *bundle) check(t *testing.T, host, repository, tag string) {
	t.Helper()
	url := "http://" + host + "/v2/" + repository
	if status, got := registrytest.Request(t, http.MethodGet, url+"/manifests/"+tag, "", nil); status != 200 || got != string(b.documents[b.root]) {
		t.Errorf("%s is another document: %d %s", tag, status, got)
	}
	for d, want := range b.documents {
		if status, got := registrytest.Request(t, http.MethodGet, url+"/manifests/"+d.String(), "", nil); status != 200 || got != string(want) {
			t.Errorf("manifest %s: %d %s", d, status, got)
		}
	}
	for d, want := range b.blobs {
		if status, got := registrytest.Request(t, http.MethodGet, url+"/blobs/"+d.String(), "", nil); status != 200 || got != string(want) {
			t.Errorf("blob %s: %d, %d bytes", d, status, len(got))
		}
	}
}
