package registry_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	embedded "github.com/bobbuild/bob/registry/serve"
)

// odd answers one kind of request with another status than the registry behind it.
type odd struct {
	inner        http.Handler
	method, path string // path is a part of it
	status       int
	header       []string // more of the answer's, as name and value
	instead      bool     // the registry isn't asked

	mu   sync.Mutex
	seen []string // the requests, as method and path
}

func (o *odd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.seen = append(o.seen, r.Method+" "+r.URL.RequestURI())
	o.mu.Unlock()
	if r.Method == http.MethodHead && strings.HasPrefix(r.URL.Path, "/v2/other/blobs/") {
		w.WriteHeader(http.StatusNotFound) // and not in another repository either
		return
	}
	mount := strings.Contains(r.URL.RawQuery, "mount=")
	if r.Method != o.method || mount && !o.instead || !strings.Contains(r.URL.RequestURI(), o.path) {
		o.inner.ServeHTTP(w, r)
		return
	}
	if o.instead {
		registrytest.Say(o.status, "UNKNOWN", o.header...)(w, r)
		return
	}
	o.inner.ServeHTTP(&oddWriter{w, o.status}, r)
}

type oddWriter struct {
	http.ResponseWriter
	status int
}

func (w *oddWriter) WriteHeader(status int) {
	if status < 300 {
		status = w.status
	}
	w.ResponseWriter.WriteHeader(status)
}

// TestStatuses has a registry answer each request of a push with all statuses that
// real ones answer it with.
func TestStatuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		method, path string
		statuses     []int
		instead      bool
	}{
		{"POST", "/blobs/uploads/", []int{200, 202, 204}, false},
		{"PATCH", "/blobs/uploads/", []int{200, 201, 202, 204}, false},
		{"PUT", "/blobs/uploads/", []int{200, 201, 202, 204}, false},
		{"PUT", "/manifests/", []int{200, 201, 202, 204}, false},
		{"DELETE", "/blobs/uploads/", []int{200, 202, 204, 404, 405, 500}, false},
		{"HEAD", "/blobs/", []int{204, 400, 403, 404, 405, 406, 410, 422, 501}, true},
		// What keeps a registry from mounting doesn't keep it from an upload.
		{"POST", "mount=", []int{200, 202, 204, 400, 401, 403, 404, 405, 409, 413, 429, 500, 501, 502, 503, 504}, true},
	} {
		for _, status := range tt.statuses {
			t.Run(fmt.Sprint(tt.method, " ", tt.path, " ", status), func(t *testing.T) {
				t.Parallel()
				h, err := embedded.Handler(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				o := &odd{inner: h, method: tt.method, path: tt.path, status: status, instead: tt.instead}
				host := registrytest.Serve(t, o)
				f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 1000)
				if tt.method == "PATCH" {
					f = registrytest.NewFixture(t, registrytest.AMD64, 1000, 9<<20) // the second in parts
				}
				c := registrytest.NewClient(t, func(o *registry.Options) { o.Notice = func(s string) { t.Error("it isn't done at once:", s) } })
				f.Push(t.Context(), t, c, host+"/app:1")
				f.Push(t.Context(), t, c, host+"/other:1")
				checkStored(t, f, host, "other", "1")
				o.mu.Lock()
				defer o.mu.Unlock()
				if !slices.ContainsFunc(o.seen, func(s string) bool { return strings.Contains(s, "mount=") }) {
					t.Error("nothing was mounted")
				}
			})
		}
	}
}

// TestOCIRefused checks that a registry that knows no OCI media types is met by
// advice, and that other manifests get none.
func TestOCIRefused(t *testing.T) {
	t.Parallel()
	const advice = "--oci-mediatypes=false"
	for _, tt := range []struct {
		status      int
		code        string
		docker, has bool
	}{
		{415, "UNSUPPORTED", false, true},
		{415, "", false, true},
		{400, "MANIFEST_INVALID", false, true},
		{404, "UNSUPPORTED", false, true},
		{415, "UNSUPPORTED", true, false},
		{400, "MANIFEST_INVALID", true, false},
		{400, "TAG_INVALID", false, false},
		{403, "DENIED", false, false},
	} {
		t.Run(fmt.Sprint(tt.status, tt.code, tt.docker), func(t *testing.T) {
			t.Parallel()
			f := registrytest.NewFixture(t, registrytest.AMD64, 10)
			if tt.docker {
				f.MediaType = "application/vnd.docker.distribution.manifest.v2+json"
			}
			host := registrytest.NewFaulty(t, nil, registrytest.On("PUT", "/manifests/", registrytest.Always(registrytest.Say(tt.status, tt.code))))
			err := pushBlobs(t, registrytest.NewClient(t, nil), f, host+"/app:1")
			registrytest.CheckError(t, err, host, nil, fmt.Sprint(tt.status))
			if strings.Contains(err.Error(), advice) != tt.has {
				t.Errorf("advice %t, want %t", !tt.has, tt.has)
			}
		})
	}
}

// TestPullStatuses has a registry answer each request of a pull in all ways that
// real ones do, in the middle of a blob too.
func TestPullStatuses(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 300_000)
	var host string
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store := registrytest.Serve(t, h)
	f.Push(t.Context(), t, registrytest.NewClient(t, nil), store+"/app:1")
	for _, kind := range []string{"/manifests/", "/blobs/"} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			host = registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, kind) {
					w.Header().Set("Location", "http://"+store+r.URL.Path)
					w.WriteHeader(status)
					return
				}
				h.ServeHTTP(w, r)
			}))
			f.Check(t.Context(), t, registrytest.NewClient(t, nil), host+"/app:1")
		}
	}
	// The blob breaks off; what comes after that is answered so.
	whole := func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		h.ServeHTTP(w, r)
	}
	for name, resumed := range map[string]http.HandlerFunc{
		"206": h.ServeHTTP,
		"200": whole,
		"416": func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			whole(w, r)
		},
	} {
		broken := registrytest.Times(1, cutResponse(h))
		host := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case !strings.Contains(r.URL.Path, f.Descs[0].Digest.String()):
				h.ServeHTTP(w, r)
			case !broken(w, r):
				resumed(w, r)
			}
		}))
		t.Run(name, func(t *testing.T) { f.Check(t.Context(), t, registrytest.NewClient(t, nil), host+"/app:1") })
	}
}
