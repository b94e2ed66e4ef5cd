package registry_test

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// requests counts what a registry is asked, as "METHOD kind".
type requests struct {
	inner http.Handler

	mu    sync.Mutex
	count map[string]int
}

func (r *requests) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	kind := "other"
	for _, k := range []string{"/manifests/", "/uploads/", "/blobs/"} {
		if strings.Contains(req.URL.Path, k) {
			kind = strings.Trim(k, "/")
			break
		}
	}
	r.mu.Lock()
	r.count[req.Method+" "+kind]++
	r.mu.Unlock()
	r.inner.ServeHTTP(w, req)
}

// take returns what was counted since the last call, without requests that only reach the
// registry.
func (r *requests) take() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.count
	r.count = make(map[string]int)
	delete(taken, "GET other")
	return taken
}

func (r *requests) want(t *testing.T, what string, want map[string]int) {
	t.Helper()
	if got := r.take(); !maps.Equal(got, want) {
		t.Errorf("%s: requests are %v, want %v", what, got, want)
	}
}

// TestLearn pushes an image again that the registry has.
func TestLearn(t *testing.T) {
	t.Parallel()
	counted := &requests{inner: newInner(t), count: make(map[string]int)}
	host := registrytest.Serve(t, counted)
	f := registrytest.NewFixture(t, registrytest.AMD64, 10, 20)
	f.Push(t.Context(), t, registrytest.NewClient(t, nil), host+"/app:1")
	counted.take()

	again := registrytest.NewClient(t, nil)
	p, err := again.Push(t.Context(), host+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, d := range f.Descs {
		if err := p.Blob(t.Context(), d.Descriptor, "", registrytest.Opener(f.Layers[i])); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Blob(t.Context(), registrytest.Descriptor(ocispec.MediaTypeImageConfig, f.Config), "", registrytest.Opener(f.Config)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Manifest(t.Context(), f.MediaType, f.Manifest); err != nil {
		t.Fatal(err)
	}
	counted.want(t, "learned", map[string]int{"POST uploads": 1, "GET manifests": 1, "PUT manifests": 1})

	none, err := again.Push(t.Context(), host+"/app:none")
	if err != nil {
		t.Fatal(err)
	}
	if err := none.Learn(t.Context()); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("of a tag that isn't there: %v", err)
	}
}

// TestLearnWrong has a registry that lacks a blob of an image that it has.
func TestLearnWrong(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 10)
	var lost sync.Map // what to refuse manifests with
	host := registrytest.NewFaulty(t, f, func(w http.ResponseWriter, r *http.Request) bool {
		if _, is := lost.Load("blob"); is && r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			registrytest.Say(http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")(w, r)
			return true
		}
		return false
	})
	c := registrytest.NewClient(t, nil)
	p, err := c.Push(t.Context(), host+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Learn(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost.Store("blob", true)
	_, err = p.Manifest(t.Context(), f.MediaType, f.Manifest)
	if err == nil || !p.Forget(err) {
		t.Fatalf("%v is not for want of a blob", err)
	}
	lost.Clear()
	if p.Forget(err) {
		t.Error("forgotten twice")
	}
	f.Push(t.Context(), t, c, host+"/app:1")
	f.Check(t.Context(), t, c, host+"/app:1")
}

// TestSmallStream streams a small blob.
func TestSmallStream(t *testing.T) {
	t.Parallel()
	counted := &requests{inner: newInner(t), count: make(map[string]int)}
	host := registrytest.Serve(t, counted)
	c := registrytest.NewClient(t, nil)
	p, err := c.Push(t.Context(), host+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	for size, want := range map[int]map[string]int{
		0: {"PUT uploads": 1}, 1000: {"PUT uploads": 1}, 3 << 20: {"PATCH uploads": 1, "PUT uploads": 1},
	} {
		content := slices.Repeat([]byte("x"), size)
		u, err := p.Stream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		counted.take() // the upload is begun
		if _, err := u.Write(content); err != nil {
			t.Fatal(err)
		}
		d := digest.FromBytes(content)
		if err := errors.Join(u.Commit(d), u.Close()); err != nil {
			t.Fatal(err)
		}
		counted.want(t, "stream", want)
		if status, _ := registrytest.Request(t, http.MethodHead, "http://"+host+"/v2/app/blobs/"+d.String(), "", nil); status != http.StatusOK {
			t.Errorf("blob of %d bytes: status %d", size, status)
		}
		counted.take()
	}
}

// kept is where a test keeps documents.
type kept struct{ values sync.Map }

func (k *kept) Record(kind string, key digest.Digest) ([]byte, error) {
	v, _ := k.values.Load(kind + key.String())
	if value, ok := v.([]byte); ok {
		return value, nil
	}
	return nil, errors.New("not there")
}

func (k *kept) PutRecord(kind string, key digest.Digest, value []byte) error {
	k.values.Store(kind+key.String(), value)
	return nil
}

// TestKeptDocuments finds an image of an index again and again.
func TestKeptDocuments(t *testing.T) {
	t.Parallel()
	counted := &requests{inner: newInner(t), count: make(map[string]int)}
	host := registrytest.Serve(t, counted)
	c := registrytest.NewClient(t, nil)
	f := registrytest.NewFixture(t, registrytest.AMD64, 10)
	f.Push(t.Context(), t, c, host+"/app:1")
	registrytest.PushDocument(t, c, host+"/app:index", ocispec.MediaTypeImageIndex, registrytest.Encode(t, ocispec.Index{
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{{
			MediaType: f.MediaType, Digest: digest.FromBytes(f.Manifest), Size: int64(len(f.Manifest)), Platform: &registrytest.AMD64,
		}},
	}))
	counted.take()
	var documents kept
	for what, want := range []map[string]int{
		{"GET manifests": 2, "GET blobs": 1}, {"GET manifests": 1}, {"GET manifests": 1},
	} {
		c := registrytest.NewClient(t, func(o *registry.Options) { o.Documents = &documents })
		f.Check(t.Context(), t, c, host+"/app:index")
		got := counted.take()
		got["GET blobs"] -= len(f.Layers)
		if got["GET blobs"] == 0 {
			delete(got, "GET blobs")
		}
		if !maps.Equal(got, want) {
			t.Errorf("time %d: requests are %v, want %v", what, got, want)
		}
	}
	documents.values.Range(func(key, _ any) bool { documents.values.Store(key, []byte("damaged")); return true })
	f.Check(t.Context(), t, registrytest.NewClient(t, func(o *registry.Options) { o.Documents = &documents }), host+"/app:index")
}
