package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
)

// meter counts what uploads bring to a registry.
type meter struct {
	inner http.Handler
	bytes atomic.Int64

	mu   sync.Mutex
	seen []string // method and kind of place of each request
}

func (m *meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	kind := ""
	for _, part := range []string{"/manifests/", "/blobs/uploads/", "/blobs/"} {
		if strings.Contains(r.URL.Path, part) {
			kind = part
			break
		}
	}
	m.mu.Lock()
	m.seen = append(m.seen, r.Method+" "+kind)
	m.mu.Unlock()
	r.Body = &meteredBody{r.Body, m}
	m.inner.ServeHTTP(w, r)
}

func (m *meter) count(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(m.seen), func(s string) bool { return s != what }))
}

type meteredBody struct {
	io.ReadCloser

	meter *meter
}

func (b *meteredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.meter.bytes.Add(int64(n))
	return n, err
}

// seekable is content that can be read from anywhere, and tells from where it was.
type seekable struct {
	*bytes.Reader

	from *atomic.Int64
}

func (s seekable) Close() error { return nil }

func (s seekable) Seek(offset int64, whence int) (int64, error) {
	s.from.Store(offset)
	return s.Reader.Seek(offset, whence)
}

// TestUploadGoesOn breaks the upload of a large blob more often than there are
// retries, and wants each byte to arrive once.
func TestUploadGoesOn(t *testing.T) {
	t.Parallel()
	content := registrytest.NewFixture(t, registrytest.AMD64, 20<<20).Layers[0]
	d := registrytest.Descriptor("", content)
	for name, canSeek := range map[string]bool{"seeking": true, "skipping": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inner := newInner(t)
			// Each PATCH brings 3 MiB before it breaks: seven are needed.
			cut := registrytest.Always(cutRequest(inner, 3<<20))
			m := &meter{inner: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method != http.MethodPatch || r.ContentLength <= 3<<20 || !cut(w, r) {
					inner.ServeHTTP(w, r)
				}
			})}
			host := registrytest.Serve(t, m)
			c := registrytest.NewClient(t, func(o *registry.Options) { o.Patience.Limit = time.Second })
			p, err := c.Push(t.Context(), host+"/app:1")
			if err != nil {
				t.Fatal(err)
			}
			var from atomic.Int64
			open := registrytest.Opener(content)
			if canSeek {
				open = func() (io.ReadCloser, error) { return seekable{bytes.NewReader(content), &from}, nil }
			}
			if err := p.Blob(t.Context(), d, "", open); err != nil {
				t.Fatal(err)
			}
			status, got := fetch(t, host, "app/blobs/"+d.Digest.String())
			if status != http.StatusOK || got != string(content) {
				t.Errorf("status %d, %d bytes", status, len(got))
			}
			if n := m.count("PATCH /blobs/uploads/"); n != 7 {
				t.Errorf("%d PATCH requests, want 7", n)
			}
			if n := m.bytes.Load(); n != d.Size {
				t.Errorf("the registry read %d bytes of a blob of %d", n, d.Size)
			}
			if canSeek && from.Load() != 18<<20 {
				t.Errorf("read last from %d on", from.Load())
			}
		})
	}
}

// TestUploadBeginsAnew has registries that can't go on with a broken upload, each
// in its way.
func TestUploadBeginsAnew(t *testing.T) {
	t.Parallel()
	content := registrytest.NewFixture(t, registrytest.AMD64, 9<<20).Layers[0]
	d := registrytest.Descriptor("", content)
	status := func(header string) func(http.ResponseWriter, *http.Request) bool {
		return registrytest.On("GET", "/uploads/", registrytest.Always(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", r.URL.Path)
			w.Header().Set("Range", header)
			w.WriteHeader(http.StatusNoContent)
		}))
	}
	resumed := func(fault func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("Content-Range") == "" {
				return false
			}
			fault(w, r)
			return true
		}
	}
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"forgotten":           registrytest.On("GET", "/uploads/", registrytest.Always(registrytest.Say(404, "BLOB_UPLOAD_UNKNOWN"))),
		"no status":           registrytest.On("GET", "/uploads/", registrytest.Always(registrytest.Say(405, "UNSUPPORTED"))),
		"nothing there":       status("0-0"),
		"no range":            status(""),
		"nonsense":            status("bytes 1-2-3"),
		"more than there is":  status(fmt.Sprintf("0-%d", 10<<20)),
		"all, it lies":        status(fmt.Sprintf("0-%d", 9<<20-1)),
		"another place":       status("0-99"),
		"out of order":        resumed(registrytest.Say(416, "BLOB_UPLOAD_INVALID")),
		"invalid":             resumed(registrytest.Say(400, "BLOB_UPLOAD_INVALID")),
		"broken for good":     resumed(registrytest.Say(500, "UNKNOWN")),
		"resuming breaks too": resumed(registrytest.Reset),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inner := newInner(t)
			first := registrytest.Times(1, cutRequest(inner, 5<<20))
			host := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPatch && first(w, r) || fault(w, r) {
					return
				}
				inner.ServeHTTP(w, r)
			}))
			p, err := registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
			if err != nil {
				t.Fatal(err)
			}
			err = p.Blob(t.Context(), d, "", registrytest.Opener(content))
			if name == "broken for good" || name == "resuming breaks too" {
				// The upload could go on; the registry just doesn't manage.
				registrytest.CheckError(t, err, host, nil, "push blob", d.Digest.String(), "tried")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if status, got := fetch(t, host, "app/blobs/"+d.Digest.String()); status != http.StatusOK || got != string(content) {
				t.Errorf("status %d, %d bytes", status, len(got))
			}
		})
	}
}

// TestLargeBlobFaults breaks the upload of a large blob in every place and way.
func TestLargeBlobFaults(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) string{"distribution": serveDistribution, "embedded": registrytest.ServeEmbedded} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := start(t)
			inner := behind(t, backend)
			for method, faults := range map[string]map[string]func(http.ResponseWriter, *http.Request){
				http.MethodPatch: {"500": registrytest.Say(500, ""), "reset": registrytest.Reset, "cut": cutRequest(inner, 5<<20), "lost": loseAnswer(inner)},
				http.MethodPut:   {"500": registrytest.Say(500, ""), "reset": registrytest.Reset, "lost": loseAnswer(inner)},
			} {
				for kind, fault := range faults {
					t.Run(method+" "+kind, func(t *testing.T) {
						t.Parallel()
						content := registrytest.NewFixture(t, registrytest.AMD64, 9<<20).Layers[0]
						d := registrytest.Descriptor("", content)
						once := registrytest.On(method, "/uploads/", registrytest.Times(1, fault))
						host := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
							if !once(w, r) {
								inner.ServeHTTP(w, r)
							}
						}))
						repo := strings.ToLower(method) + kind
						p, err := registrytest.NewClient(t, nil).Push(t.Context(), host+"/"+repo+":1")
						if err != nil {
							t.Fatal(err)
						}
						if err := p.Blob(t.Context(), d, "", registrytest.Opener(content)); err != nil {
							t.Fatal(err)
						}
						if status, got := fetch(t, backend, repo+"/blobs/"+d.Digest.String()); status != http.StatusOK || got != string(content) {
							t.Errorf("status %d, %d bytes", status, len(got))
						}
					})
				}
			}
		})
	}
}

// TestStreamGoesOn breaks a stream and wants only its rest sent when the blob is
// whole.
func TestStreamGoesOn(t *testing.T) {
	t.Parallel()
	content := registrytest.NewFixture(t, registrytest.AMD64, 20<<20).Layers[0]
	d := registrytest.Descriptor("", content)
	inner := newInner(t)
	cut := registrytest.On("PATCH", "/uploads/", registrytest.Times(1, cutRequest(inner, 6<<20)))
	m := &meter{inner: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !cut(w, r) {
			inner.ServeHTTP(w, r)
		}
	})}
	host := registrytest.Serve(t, m)
	p, err := registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	u, err := p.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(u, bytes.NewReader(content)); err == nil {
		t.Error("the stream didn't break")
	}
	registrytest.CheckError(t, u.Commit(d.Digest), host, nil, "push blob")
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Blob(t.Context(), d, "", registrytest.Opener(content)); err != nil {
		t.Fatal(err)
	}
	if n := m.bytes.Load(); n != d.Size {
		t.Errorf("the registry read %d bytes of a blob of %d", n, d.Size)
	}
	if status, got := fetch(t, host, "app/blobs/"+d.Digest.String()); status != http.StatusOK || got != string(content) {
		t.Errorf("status %d, %d bytes", status, len(got))
	}
}

// TestTagsShareBlobs pushes to two tags of a repository, and to another repository
// and another registry, all side by side.
func TestTagsShareBlobs(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) string{"distribution": serveDistribution, "embedded": registrytest.ServeEmbedded} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := start(t)
			m := &meter{inner: behind(t, backend)}
			host, other := registrytest.Serve(t, m), registrytest.ServeEmbedded(t)
			f := registrytest.NewFixture(t, registrytest.AMD64, 300_000, 200_000)
			c := registrytest.NewClient(t, nil)
			f.Push(t.Context(), t, c, host+"/app:1")
			want := int64(len(f.Layers[0]) + len(f.Layers[1]) + len(f.Config))
			var wait sync.WaitGroup
			for _, ref := range []string{host + "/app:2", host + "/app:3", host + "/mounted/app:1"} {
				wait.Go(func() {
					p, err := c.Push(t.Context(), ref)
					if err != nil {
						t.Error(err)
						return
					}
					for i, l := range f.Descs {
						if err := p.Blob(t.Context(), l.Descriptor, "", mustNotOpen(t)); err != nil {
							t.Errorf("%s, layer %d: %v", ref, i, err)
						}
					}
					if err := p.Blob(t.Context(), registrytest.Descriptor("", f.Config), "", mustNotOpen(t)); err != nil {
						t.Errorf("%s: %v", ref, err)
					}
					if _, err := p.Manifest(t.Context(), f.MediaType, f.Manifest); err != nil {
						t.Errorf("%s: %v", ref, err)
					}
				})
			}
			wait.Wait()
			for _, place := range []string{"app 1", "app 2", "app 3", "mounted/app 1"} {
				repo, tag, _ := strings.Cut(place, " ")
				checkStored(t, f, backend, repo, tag)
			}
			if got := m.bytes.Load() - 4*int64(len(f.Manifest)); got != want {
				t.Errorf("%d bytes of blobs were sent, want %d", got, want)
			}
			// The repository was asked for its rights once, by an upload that was used.
			if n := m.count("HEAD /blobs/"); n != 2+3 {
				t.Errorf("%d blobs were asked for, want 2 for the first tag, 3 for the other repository and none for other tags", n)
			}

			// Another registry gets everything, of the one that has it.
			im := f.Check(t.Context(), t, c, host+"/app:3")
			p, err := c.Push(t.Context(), other+"/app:1")
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range im.Layers {
				if err := p.Blob(t.Context(), l.Descriptor, im.Reference, func() (io.ReadCloser, error) {
					return im.Blob(t.Context(), l.Descriptor)
				}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestSameBlobAtOnce has many bring the same blob to a registry.
func TestSameBlobAtOnce(t *testing.T) {
	t.Parallel()
	m := &meter{inner: newInner(t)}
	host := registrytest.Serve(t, m)
	c := registrytest.NewClient(t, nil)
	content := bytes.Repeat([]byte("same"), 100_000)
	d := registrytest.Descriptor("", content)
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			p, err := c.Push(t.Context(), fmt.Sprintf("%s/app%d:%d", host, i%4, i))
			if err == nil {
				err = p.Blob(t.Context(), d, "", registrytest.Opener(content))
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if n := m.bytes.Load(); n != d.Size {
		t.Errorf("%d bytes were sent of a blob of %d", n, d.Size)
	}
}

// TestMountRefused checks that a blob is sent when the registry won't mount it, in
// the upload that it offers instead, if it does.
func TestMountRefused(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request){
		"by another upload": nil, "by an error": registrytest.Say(403, "DENIED"), "by a reset": registrytest.Reset, "without words": registrytest.Say(202, ""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inner := newInner(t)
			host := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Has("mount") {
					if fault != nil {
						fault(w, r)
						return
					}
					r.URL.RawQuery = ""
				}
				inner.ServeHTTP(w, r)
			}))
			f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 1000)
			c := registrytest.NewClient(t, func(o *registry.Options) { o.Patience.Limit = time.Second })
			f.Push(t.Context(), t, c, host+"/app:1")
			f.Push(t.Context(), t, c, host+"/other:1")
			checkStored(t, f, host, "other", "1")
		})
	}
}

func TestUploadOffset(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]int64{
		"0-99": 100, "bytes=0-99": 100, "0-1": 2, "0-0": 0, "": 0, "1-5": 0, "0-": 0, "0--5": 0, "0-9999999999999999999999": 0, "99": 0,
	} {
		if got, ok := registry.UploadOffset(header); got != want || ok != (want > 0) {
			t.Errorf("%q: %d, %t", header, got, ok)
		}
	}
}
