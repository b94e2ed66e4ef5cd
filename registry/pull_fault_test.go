package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/patience"
	embedded "github.com/bobbuild/bob/registry/serve"

	"github.com/bobbuild/bob/registry/oci"
)

// faulty wraps the embedded registry: fault may answer a request in its place,
// and then returns true. It is switched on by arm.
type faulty struct {
	inner http.Handler
	armed atomic.Bool
	fault func(w http.ResponseWriter, r *http.Request) bool
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !f.armed.Load() || !f.fault(w, r) {
		f.inner.ServeHTTP(w, r)
	}
}

// newFaulty serves the fixture, if any, as app:1 with a fault, armed.
func newFaulty(t *testing.T, f *fixture, fault func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := &faulty{inner: h, fault: fault}
	host := serve(t, server)
	if f != nil {
		f.push(t.Context(), t, newClient(t, nil), host+"/app:1")
	}
	server.armed.Store(true)
	return host
}

// times makes a fault happen n times only.
func times(n int32, fault func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	var count atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) bool {
		if count.Add(1) > n {
			return false
		}
		fault(w, r)
		return true
	}
}

func always(fault func(http.ResponseWriter, *http.Request)) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		fault(w, r)
		return true
	}
}

// on restricts a fault to one kind of request.
func on(method, pathPart string, fault func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return r.Method == method && strings.Contains(r.URL.Path, pathPart) && fault(w, r)
	}
}

// say answers with a status and an error of the distribution-spec.
func say(status int, code string, header ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"said so"}]}`, code)
	}
}

// body answers 200 with a body.
func body(contentType, text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = io.WriteString(w, text)
	}
}

// reset ends the connection without an answer.
func reset(w http.ResponseWriter, _ *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// hang answers nothing until the client is gone.
func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func TestPullFaults(t *testing.T) {
	t.Parallel()
	const manifests, blobs = "/manifests/", "/blobs/"
	f := newFixture(t, amd64, 300_000)
	lie := bytes.Repeat([]byte("x"), 300_000)
	tests := []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		want  []string // in the error; none: it works
		is    error
	}{
		{"500 once", on("GET", manifests, times(1, say(500, "UNKNOWN"))), nil, nil},
		{"503 twice at ping", on("GET", "/v2/", times(2, say(503, "UNAVAILABLE"))), nil, nil},
		{"408 once", on("GET", blobs, times(1, say(408, "UNKNOWN"))), nil, nil},
		{"429 once", on("GET", blobs, times(1, say(429, "TOOMANYREQUESTS", "Retry-After", "0"))), nil, nil},
		{"reset once", on("GET", manifests, times(1, reset)), nil, nil},
		{"reset blob once", on("GET", blobs, times(1, reset)), nil, nil},
		{
			"500 for ever", on("GET", manifests, always(say(500, "UNKNOWN"))),
			[]string{"pull manifest", "/app:1", "problem of its own", "500", "tried 1", "said so"},
			nil,
		},
		{
			"429 for hours", on("GET", manifests, always(say(429, "TOOMANYREQUESTS", "Retry-After", "7200"))),
			[]string{"too many requests", "try again in 2h0m0s", "log in"},
			nil,
		},
		{
			"401", on("GET", manifests, always(say(401, "UNAUTHORIZED"))),
			[]string{"wants credentials", "docker login", "401"},
			registry.ErrDenied,
		},
		{
			"403", on("GET", manifests, always(say(403, "DENIED"))),
			[]string{"access denied", "right to pull", "403", "DENIED"},
			registry.ErrDenied,
		},
		{
			"no manifest", on("GET", manifests, always(say(404, "MANIFEST_UNKNOWN"))),
			[]string{"no such image", "app:1"},
			oci.ErrNotFound,
		},
		{
			"no repository", on("GET", manifests, always(say(404, "NAME_UNKNOWN"))),
			[]string{"no such repository", "log in"},
			oci.ErrNotFound,
		},
		{
			"no blob", on("GET", blobs, always(say(404, "BLOB_UNKNOWN"))),
			[]string{"no such blob", "sha256:", "incomplete"},
			oci.ErrNotFound,
		},
		{
			"no registry", on("GET", "/v2/", always(say(404, "PAGE"))),
			[]string{"connect to", "is this a registry?"},
			oci.ErrNotFound,
		},
		{
			"broken JSON", on("GET", manifests, always(body(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,`))),
			[]string{"is not JSON"},
			nil,
		},
		{
			"HTML", on("GET", manifests, always(body("text/html", `<html>`))),
			[]string{"is not JSON", "text/html"},
			nil,
		},
		{
			"neither", on("GET", manifests, always(body("application/json", `{"schemaVersion":2}`))),
			[]string{"neither a manifest nor an index"},
			nil,
		},
		{
			"both", on("GET", manifests, always(body("application/json", `{"manifests":[],"layers":[],"config":{}}`))),
			[]string{"both a manifest and an index"},
			oci.ErrCorrupt,
		},
		{
			"index that is a manifest", on("GET", manifests, always(body(ocispec.MediaTypeImageIndex, `{"layers":[],"config":{}}`))),
			[]string{"something else"},
			oci.ErrCorrupt,
		},
		{"schema 1", on("GET", manifests, always(body("application/vnd.docker.distribution.manifest.v1+prettyjws",
			`{"schemaVersion":1,"fsLayers":[]}`))), []string{"schema 1", "not supported"}, nil},
		{
			"helm chart", on("GET", manifests, always(body(ocispec.MediaTypeImageManifest,
				`{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"},"layers":[]}`))),
			[]string{"not a container image", "helm"},
			nil,
		},
		{
			"path as digest", on("GET", manifests, always(body(ocispec.MediaTypeImageManifest,
				`{"config":{"digest":"sha256:../../etc/passwd","size":1},"layers":[]}`))),
			[]string{"the config's digest"},
			oci.ErrCorrupt,
		},
		{
			"huge manifest", on("GET", manifests, always(body(ocispec.MediaTypeImageManifest, strings.Repeat(" ", 5<<20)))),
			[]string{"larger than the 4 MiB"},
			oci.ErrCorrupt,
		},
		{
			"huge config", on("GET", manifests, always(body(ocispec.MediaTypeImageManifest,
				`{"config":{"digest":"`+digest.FromString("").String()+`","size":9000000},"layers":[]}`))),
			[]string{"8 MiB"},
			oci.ErrCorrupt,
		},
		{"manifest digest lie", on("GET", manifests, always(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", digest.FromString("other").String())
			_, _ = w.Write(f.manifest)
		})), []string{"digest"}, oci.ErrCorrupt},
		{
			"blob digest lie", on("GET", blobs+f.descs[0].Digest.String(), always(body("", string(lie)))),
			[]string{"another digest"},
			oci.ErrCorrupt,
		},
		{
			"blob too long", on("GET", blobs+f.descs[0].Digest.String(), always(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "300001")
				_, _ = w.Write(append(lie, 'y'))
			})),
			[]string{"300001 bytes instead of 300000"},
			oci.ErrCorrupt,
		},
		{"blob too long, unannounced", on("GET", blobs+f.descs[0].Digest.String(), always(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(f.layers[0])
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "y")
		})), []string{"more than 300000 bytes"}, oci.ErrCorrupt},
		{
			"blob too short", on("GET", blobs+f.descs[0].Digest.String(), always(body("", "short"))),
			[]string{"5 bytes instead of 300000"},
			oci.ErrCorrupt,
		},
		{
			"config lie", on("GET", blobs, always(body("", strings.Repeat("z", len(f.config))))),
			[]string{"pull config", "another digest"},
			oci.ErrCorrupt,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newFaulty(t, f, tt.fault)
			c := newClient(t, nil)
			if len(tt.want) == 0 {
				f.check(t.Context(), t, c, host+"/app:1")
				return
			}
			im, err := c.Resolve(t.Context(), host+"/app:1", amd64)
			if err == nil {
				_, err = readBlob(t.Context(), im, f.descs[0].Descriptor)
			}
			checkError(t, err, host, tt.is, tt.want...)
		})
	}
}

// checkError checks that an error is ours, names the host, and says what is wanted.
func checkError(t *testing.T, err error, host string, is error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	t.Log(err)
	var e *registry.Error
	if !errors.As(err, &e) || e.Host != host {
		t.Errorf("error %#v is not an *Error of %s", err, host)
	}
	if is != nil && !errors.Is(err, is) {
		t.Errorf("error is not %q", is)
	}
	for _, part := range append(want, host) {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error lacks %q", part)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Error("error has several lines")
	}
}

func TestDown(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	_ = listener.Close()
	var notices []string
	c := newClient(t, func(o *registry.Options) {
		o.Notice = func(s string) { notices = append(notices, s) }
	})
	_, err = c.Push(t.Context(), host+"/app:1")
	checkError(t, err, host, nil, "connection refused", "is the registry running", host+"/app")
	if len(notices) == 0 || !strings.Contains(notices[0], "connect to "+host+": connection refused; trying again in ") || !strings.HasSuffix(notices[0], "for another 1m0s at most") {
		t.Errorf("while it waited it said %q", notices)
	}
	_, err = c.Resolve(t.Context(), "nowhere.invalid/app", amd64)
	checkError(t, err, "nowhere.invalid", nil)
}

// TestSlowReader checks that time the caller takes isn't held against the registry.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	f := newFixture(t, amd64, 8<<20)
	host := newFaulty(t, f, harmless)
	c := newClient(t, func(o *registry.Options) { o.IdleTimeout, o.Patience.Limit = 2*time.Second, -1 })
	im, err := c.Resolve(t.Context(), host+"/app:1", amd64)
	if err != nil {
		t.Fatal(err)
	}
	r, err := im.Blob(t.Context(), f.descs[0].Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	time.Sleep(3 * time.Second)
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, f.layers[0]) {
		t.Fatalf("read %d bytes: %v", len(got), err)
	}
}

func TestResume(t *testing.T) {
	t.Parallel()
	f := newFixture(t, amd64, 1<<20)
	name := "/blobs/" + f.descs[0].Digest.String()
	truncate := func(w http.ResponseWriter, r *http.Request) {
		from, status := 0, http.StatusOK
		if ranged := r.Header.Get("Range"); ranged != "" {
			if _, err := fmt.Sscanf(ranged, "bytes=%d-", &from); err != nil {
				t.Error(err)
			}
			status = http.StatusPartialContent
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(f.layers[0])-1, len(f.layers[0])))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(f.layers[0])-from))
		w.WriteHeader(status)
		_, _ = w.Write(f.layers[0][from:min(from+100_000, len(f.layers[0]))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	ignoreRange := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			_, _ = w.Write(f.layers[0])
			return
		}
		truncate(w, r)
	}
	wrongRange := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			w.Header().Set("Content-Range", "bytes 0-5/6")
			w.WriteHeader(http.StatusPartialContent)
			return
		}
		truncate(w, r)
	}
	t.Run("many breaks", func(t *testing.T) {
		t.Parallel()
		// More breaks than retries: progress counts.
		host := newFaulty(t, f, on("GET", name, times(10, truncate)))
		f.check(t.Context(), t, newClient(t, nil), host+"/app:1")
	})
	t.Run("no ranges", func(t *testing.T) {
		t.Parallel()
		host := newFaulty(t, f, on("GET", name, always(ignoreRange)))
		f.check(t.Context(), t, newClient(t, nil), host+"/app:1")
	})
	t.Run("another range", func(t *testing.T) {
		t.Parallel()
		host := newFaulty(t, f, on("GET", name, always(wrongRange)))
		im, err := newClient(t, nil).Resolve(t.Context(), host+"/app:1", amd64)
		if err != nil {
			t.Fatal(err)
		}
		_, err = readBlob(t.Context(), im, f.descs[0].Descriptor)
		checkError(t, err, host, oci.ErrCorrupt, "bytes 0-5/6")
	})
	t.Run("no retries", func(t *testing.T) {
		t.Parallel()
		host := newFaulty(t, f, on("GET", name, always(truncate)))
		c := newClient(t, func(o *registry.Options) { o.Patience.Limit = -1 })
		im, err := c.Resolve(t.Context(), host+"/app:1", amd64)
		if err != nil {
			t.Fatal(err)
		}
		_, err = readBlob(t.Context(), im, f.descs[0].Descriptor)
		checkError(t, err, host, io.ErrUnexpectedEOF, "after 100000 of 1048576 bytes")
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"while waiting":  on("GET", "/manifests/", always(hang)),
		"while retrying": on("GET", "/manifests/", always(say(500, "UNKNOWN"))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			host := newFaulty(t, nil, func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/manifests/") {
					time.AfterFunc(20*time.Millisecond, cancel)
				}
				return fault(w, r)
			})
			c := newClient(t, func(o *registry.Options) { o.Patience = patience.Policy{Limit: 100 * time.Hour, First: time.Hour} })
			_, err := c.Resolve(ctx, host+"/app:1", amd64)
			checkError(t, err, host, context.Canceled, "context canceled")
		})
	}
}

func harmless(http.ResponseWriter, *http.Request) bool { return false }
