package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPullFaults(t *testing.T) {
	t.Parallel()
	const manifests, blobs = "/manifests/", "/blobs/"
	f := registrytest.NewFixture(t, registrytest.AMD64, 300_000)
	lie := bytes.Repeat([]byte("x"), 300_000)
	tests := []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		want  []string // in the error; none: it works
		is    error
	}{
		{"500 once", registrytest.On("GET", manifests, registrytest.Times(1, registrytest.Say(500, "UNKNOWN"))), nil, nil},
		{"503 twice at ping", registrytest.On("GET", "/v2/", registrytest.Times(2, registrytest.Say(503, "UNAVAILABLE"))), nil, nil},
		{"408 once", registrytest.On("GET", blobs, registrytest.Times(1, registrytest.Say(408, "UNKNOWN"))), nil, nil},
		{"429 once", registrytest.On("GET", blobs, registrytest.Times(1, registrytest.Say(429, "TOOMANYREQUESTS", "Retry-After", "0"))), nil, nil},
		{"reset once", registrytest.On("GET", manifests, registrytest.Times(1, registrytest.Reset)), nil, nil},
		{"reset blob once", registrytest.On("GET", blobs, registrytest.Times(1, registrytest.Reset)), nil, nil},
		{
			"500 for ever", registrytest.On("GET", manifests, registrytest.Always(registrytest.Say(500, "UNKNOWN"))),
			[]string{"pull manifest", "/app:1", "problem of its own", "500", "tried 1", "said so"},
			nil,
		},
		{
			"429 for hours", registrytest.On("GET", manifests, registrytest.Always(registrytest.Say(429, "TOOMANYREQUESTS", "Retry-After", "7200"))),
			[]string{"too many requests", "try again in 2h0m0s", "log in"},
			nil,
		},
		{
			"401", registrytest.On("GET", manifests, registrytest.Always(registrytest.Say(401, "UNAUTHORIZED"))),
			[]string{"wants credentials", "docker login", "401"},
			registry.ErrDenied,
		},
		{
			"403", registrytest.On("GET", manifests, registrytest.Always(registrytest.Say(403, "DENIED"))),
			[]string{"access denied", "right to pull", "403", "DENIED"},
			registry.ErrDenied,
		},
		{
			"no manifest", registrytest.On("GET", manifests, registrytest.Always(registrytest.Say(404, "MANIFEST_UNKNOWN"))),
			[]string{"no such image", "app:1"},
			oci.ErrNotFound,
		},
		{
			"no repository", registrytest.On("GET", manifests, registrytest.Always(registrytest.Say(404, "NAME_UNKNOWN"))),
			[]string{"no such repository", "log in"},
			oci.ErrNotFound,
		},
		{
			"no blob", registrytest.On("GET", blobs, registrytest.Always(registrytest.Say(404, "BLOB_UNKNOWN"))),
			[]string{"no such blob", "sha256:", "incomplete"},
			oci.ErrNotFound,
		},
		{
			"no registry", registrytest.On("GET", "/v2/", registrytest.Always(registrytest.Say(404, "PAGE"))),
			[]string{"connect to", "is this a registry?"},
			oci.ErrNotFound,
		},
		{
			"broken JSON", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,`))),
			[]string{"is not JSON"},
			nil,
		},
		{
			"HTML", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body("text/html", `<html>`))),
			[]string{"is not JSON", "text/html"},
			nil,
		},
		{
			"neither", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body("application/json", `{"schemaVersion":2}`))),
			[]string{"neither a manifest nor an index"},
			nil,
		},
		{
			"both", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body("application/json", `{"manifests":[],"layers":[],"config":{}}`))),
			[]string{"both a manifest and an index"},
			oci.ErrCorrupt,
		},
		{
			"index that is a manifest", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body(ocispec.MediaTypeImageIndex, `{"layers":[],"config":{}}`))),
			[]string{"something else"},
			oci.ErrCorrupt,
		},
		{"schema 1", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body("application/vnd.docker.distribution.manifest.v1+prettyjws",
			`{"schemaVersion":1,"fsLayers":[]}`))), []string{"schema 1", "not supported"}, nil},
		{
			"helm chart", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body(ocispec.MediaTypeImageManifest,
				`{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json"},"layers":[]}`))),
			[]string{"not a container image", "helm"},
			nil,
		},
		{
			"path as digest", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body(ocispec.MediaTypeImageManifest,
				`{"config":{"digest":"sha256:../../etc/passwd","size":1},"layers":[]}`))),
			[]string{"the config's digest"},
			oci.ErrCorrupt,
		},
		{
			"huge manifest", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body(ocispec.MediaTypeImageManifest, strings.Repeat(" ", 5<<20)))),
			[]string{"larger than the 4 MiB"},
			oci.ErrCorrupt,
		},
		{
			"huge config", registrytest.On("GET", manifests, registrytest.Always(registrytest.Body(ocispec.MediaTypeImageManifest,
				`{"config":{"digest":"`+digest.FromString("").String()+`","size":9000000},"layers":[]}`))),
			[]string{"8 MiB"},
			oci.ErrCorrupt,
		},
		{"manifest digest lie", registrytest.On("GET", manifests, registrytest.Always(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", digest.FromString("other").String())
			_, _ = w.Write(f.Manifest)
		})), []string{"digest"}, oci.ErrCorrupt},
		{
			"blob digest lie", registrytest.On("GET", blobs+f.Descs[0].Digest.String(), registrytest.Always(registrytest.Body("", string(lie)))),
			[]string{"another digest"},
			oci.ErrCorrupt,
		},
		{
			"blob too long", registrytest.On("GET", blobs+f.Descs[0].Digest.String(), registrytest.Always(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "300001")
				_, _ = w.Write(append(lie, 'y'))
			})),
			[]string{"300001 bytes instead of 300000"},
			oci.ErrCorrupt,
		},
		{"blob too long, unannounced", registrytest.On("GET", blobs+f.Descs[0].Digest.String(), registrytest.Always(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(f.Layers[0])
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "y")
		})), []string{"more than 300000 bytes"}, oci.ErrCorrupt},
		{
			"blob too short", registrytest.On("GET", blobs+f.Descs[0].Digest.String(), registrytest.Always(registrytest.Body("", "short"))),
			[]string{"5 bytes instead of 300000"},
			oci.ErrCorrupt,
		},
		{
			"config lie", registrytest.On("GET", blobs, registrytest.Always(registrytest.Body("", strings.Repeat("z", len(f.Config))))),
			[]string{"pull config", "another digest"},
			oci.ErrCorrupt,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := registrytest.NewFaulty(t, f, tt.fault)
			c := registrytest.NewClient(t, nil)
			if len(tt.want) == 0 {
				f.Check(t.Context(), t, c, host+"/app:1")
				return
			}
			im, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
			if err == nil {
				_, err = registrytest.ReadBlob(t.Context(), im, f.Descs[0].Descriptor)
			}
			registrytest.CheckError(t, err, host, tt.is, tt.want...)
		})
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
	c := registrytest.NewClient(t, func(o *registry.Options) {
		o.Notice = func(s string) { notices = append(notices, s) }
	})
	_, err = c.Push(t.Context(), host+"/app:1")
	registrytest.CheckError(t, err, host, nil, "connection refused", "is the registry running", host+"/app")
	if len(notices) == 0 || !strings.Contains(notices[0], "connect to "+host+": connection refused; trying again in ") || !strings.HasSuffix(notices[0], "for another 1m0s at most") {
		t.Errorf("while it waited it said %q", notices)
	}
	_, err = c.Resolve(t.Context(), "nowhere.invalid/app", registrytest.AMD64)
	registrytest.CheckError(t, err, "nowhere.invalid", nil)
}

// TestSlowReader checks that time the caller takes isn't held against the registry.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 8<<20)
	host := registrytest.NewFaulty(t, f, harmless)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.IdleTimeout, o.Patience.Limit = 2*time.Second, -1 })
	im, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	r, err := im.Blob(t.Context(), f.Descs[0].Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	time.Sleep(3 * time.Second)
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, f.Layers[0]) {
		t.Fatalf("read %d bytes: %v", len(got), err)
	}
}

func TestResume(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 1<<20)
	name := "/blobs/" + f.Descs[0].Digest.String()
	truncate := func(w http.ResponseWriter, r *http.Request) {
		from, status := 0, http.StatusOK
		if ranged := r.Header.Get("Range"); ranged != "" {
			if _, err := fmt.Sscanf(ranged, "bytes=%d-", &from); err != nil {
				t.Error(err)
			}
			status = http.StatusPartialContent
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(f.Layers[0])-1, len(f.Layers[0])))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(f.Layers[0])-from))
		w.WriteHeader(status)
		_, _ = w.Write(f.Layers[0][from:min(from+100_000, len(f.Layers[0]))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	ignoreRange := func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			_, _ = w.Write(f.Layers[0])
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
		host := registrytest.NewFaulty(t, f, registrytest.On("GET", name, registrytest.Times(10, truncate)))
		f.Check(t.Context(), t, registrytest.NewClient(t, nil), host+"/app:1")
	})
	t.Run("no ranges", func(t *testing.T) {
		t.Parallel()
		host := registrytest.NewFaulty(t, f, registrytest.On("GET", name, registrytest.Always(ignoreRange)))
		f.Check(t.Context(), t, registrytest.NewClient(t, nil), host+"/app:1")
	})
	t.Run("another range", func(t *testing.T) {
		t.Parallel()
		host := registrytest.NewFaulty(t, f, registrytest.On("GET", name, registrytest.Always(wrongRange)))
		im, err := registrytest.NewClient(t, nil).Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
		if err != nil {
			t.Fatal(err)
		}
		_, err = registrytest.ReadBlob(t.Context(), im, f.Descs[0].Descriptor)
		registrytest.CheckError(t, err, host, oci.ErrCorrupt, "bytes 0-5/6")
	})
	t.Run("no retries", func(t *testing.T) {
		t.Parallel()
		host := registrytest.NewFaulty(t, f, registrytest.On("GET", name, registrytest.Always(truncate)))
		c := registrytest.NewClient(t, func(o *registry.Options) { o.Patience.Limit = -1 })
		im, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
		if err != nil {
			t.Fatal(err)
		}
		_, err = registrytest.ReadBlob(t.Context(), im, f.Descs[0].Descriptor)
		registrytest.CheckError(t, err, host, io.ErrUnexpectedEOF, "after 100000 of 1048576 bytes")
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"while waiting":  registrytest.On("GET", "/manifests/", registrytest.Always(registrytest.Hang)),
		"while retrying": registrytest.On("GET", "/manifests/", registrytest.Always(registrytest.Say(500, "UNKNOWN"))),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			host := registrytest.NewFaulty(t, nil, func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/manifests/") {
					time.AfterFunc(20*time.Millisecond, cancel)
				}
				return fault(w, r)
			})
			c := registrytest.NewClient(t, func(o *registry.Options) { o.Patience = patience.Policy{Limit: 100 * time.Hour, First: time.Hour} })
			_, err := c.Resolve(ctx, host+"/app:1", registrytest.AMD64)
			registrytest.CheckError(t, err, host, context.Canceled, "context canceled")
		})
	}
}

func harmless(http.ResponseWriter, *http.Request) bool { return false }
