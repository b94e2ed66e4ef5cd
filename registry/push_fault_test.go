package registry_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	embedded "github.com/bobbuild/bob/registry/serve"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestPushFaults(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 100, 3<<20)
	breakMiddle := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
		registrytest.Reset(w, r)
	}
	const uploads = "/blobs/uploads/"
	tests := []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		want  []string // in the error; none: it works
		is    error
	}{
		{"POST 500 once", registrytest.On("POST", uploads, registrytest.Times(1, registrytest.Say(500, "UNKNOWN"))), nil, nil},
		{"POST reset once", registrytest.On("POST", uploads, registrytest.Times(1, registrytest.Reset)), nil, nil},
		{"HEAD 503 once", registrytest.On("HEAD", "/blobs/", registrytest.Times(1, registrytest.Say(503, "UNAVAILABLE"))), nil, nil},
		{"HEAD refused", registrytest.On("HEAD", "/blobs/", registrytest.Always(registrytest.Say(403, "DENIED"))), nil, nil},
		{"PUT 500 once", registrytest.On("PUT", uploads, registrytest.Times(1, registrytest.Say(500, "UNKNOWN"))), nil, nil},
		{"PUT 429 once", registrytest.On("PUT", uploads, registrytest.Times(1, registrytest.Say(429, "TOOMANYREQUESTS", "Retry-After", "0"))), nil, nil},
		{"PUT reset once", registrytest.On("PUT", uploads, registrytest.Times(1, registrytest.Reset)), nil, nil},
		{"PUT broken in the middle", registrytest.On("PUT", uploads, registrytest.Times(2, breakMiddle)), nil, nil},
		{"blobs not seen yet", registrytest.On("PUT", "/manifests/", registrytest.Times(2, registrytest.Say(400, "MANIFEST_BLOB_UNKNOWN"))), nil, nil},
		{"manifest 502 once", registrytest.On("PUT", "/manifests/", registrytest.Times(1, registrytest.Say(502, "UNKNOWN"))), nil, nil},
		{
			"denied at once", registrytest.On("POST", uploads, registrytest.Always(registrytest.Say(403, "DENIED"))),
			[]string{"prepare push to", "access denied", "right to push to this repository", "said so"},
			registry.ErrDenied,
		},
		{
			"not logged in", registrytest.On("POST", uploads, registrytest.Always(registrytest.Say(401, "UNAUTHORIZED"))),
			[]string{"prepare push to", "docker login"},
			registry.ErrDenied,
		},
		{"no Location", registrytest.On("POST", uploads, registrytest.Always(registrytest.Say(202, ""))), []string{"Location"}, nil},
		{"odd Location", registrytest.On("POST", uploads, registrytest.Always(registrytest.Say(202, "", "Location", "file:///etc/passwd"))), []string{"Location"}, nil},
		{"too large", registrytest.On("PUT", uploads, registrytest.Always(registrytest.Say(413, "SIZE_INVALID"))), []string{"so large a body", "client_max_body_size"}, nil},
		{"disk full", registrytest.On("PUT", uploads, registrytest.Always(registrytest.Say(507, "UNKNOWN"))), []string{"507", "tried 1"}, nil},
		{
			"stored as another", registrytest.On("PUT", uploads, registrytest.Always(registrytest.Say(201, "", "Docker-Content-Digest", digest.FromString("x").String()))),
			[]string{"the registry stored it as"},
			oci.ErrCorrupt,
		},
		{
			"manifest refused", registrytest.On("PUT", "/manifests/", registrytest.Always(registrytest.Say(400, "MANIFEST_INVALID"))),
			[]string{"push manifest", "/app:1", "400", "MANIFEST_INVALID", "said so"},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := registrytest.NewFaulty(t, nil, tt.fault)
			c := registrytest.NewClient(t, nil)
			err := pushBlobs(t, c, f, host+"/app:1")
			if len(tt.want) > 0 {
				registrytest.CheckError(t, err, host, tt.is, tt.want...)
				if _, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64); !errors.Is(err, oci.ErrNotFound) {
					t.Errorf("after a failed push the tag is there: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Check(t.Context(), t, c, host+"/app:1")
		})
	}
}

func pushBlobs(t *testing.T, c *registry.Client, f *registrytest.Fixture, ref string) error {
	t.Helper()
	p, err := c.Push(t.Context(), ref)
	if err != nil {
		return err
	}
	for i, layer := range f.Layers {
		if err := p.Blob(t.Context(), f.Descs[i].Descriptor, "", registrytest.Opener(layer)); err != nil {
			return err
		}
	}
	config := registrytest.Descriptor(ocispec.MediaTypeImageConfig, f.Config)
	if err := p.Blob(t.Context(), config, "", registrytest.Opener(f.Config)); err != nil {
		return err
	}
	_, err = p.Manifest(t.Context(), f.MediaType, f.Manifest)
	return err
}

func TestPushBadSource(t *testing.T) {
	t.Parallel()
	errDisk := errors.New("disk on fire")
	content := bytes.Repeat([]byte("b"), 2<<20)
	d := registrytest.Descriptor("", content)
	tests := map[string]struct {
		open func() (io.ReadCloser, error)
		is   error
		want string
	}{
		"does not open": {func() (io.ReadCloser, error) { return nil, errDisk }, errDisk, "disk on fire"},
		"breaks": {func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(content[:1<<20]), brokenReader{errDisk})), nil
		}, errDisk, "disk on fire"},
		"too short":   {registrytest.Opener(content[:1000]), oci.ErrCorrupt, "2097152 bytes"},
		"too long":    {registrytest.Opener(append(content, 'x')), nil, ""}, // caught by whoever is first
		"other bytes": {registrytest.Opener(bytes.Repeat([]byte("c"), 2<<20)), nil, "DIGEST_INVALID"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := registrytest.ServeEmbedded(t)
			notices := 0
			c := registrytest.NewClient(t, func(o *registry.Options) { o.Notice = func(string) { notices++ } })
			p, err := c.Push(t.Context(), host+"/app:1")
			if err != nil {
				t.Fatal(err)
			}
			err = p.Blob(t.Context(), d, "", tt.open)
			if tt.want == "" && err == nil {
				return
			}
			registrytest.CheckError(t, err, host, tt.is, "push blob", d.Digest.String(), tt.want)
			// Of other bytes nobody knows where they became others.
			if may := map[bool]int{true: 2}[name == "other bytes"]; notices > may {
				t.Errorf("%d retries of what can't get better", notices)
			}
		})
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

func TestStreamFaults(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("stream"), 1<<20)
	d := registrytest.Descriptor("", content)
	early := func(status int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 10_000)
			registrytest.Say(status, "UNKNOWN")(w, r)
		}
	}
	const uploads = "/blobs/uploads/"
	tests := []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		want  string // "": it works
	}{
		{"none", harmless, ""},
		{"commit 500 once", registrytest.On("PUT", uploads, registrytest.Times(1, registrytest.Say(500, "UNKNOWN"))), ""},
		{"commit reset once", registrytest.On("PUT", uploads, registrytest.Times(1, registrytest.Reset)), ""},
		{"reset", registrytest.On("PATCH", uploads, registrytest.Always(registrytest.Reset)), "push blob"},
		{"refused in the middle", registrytest.On("PATCH", uploads, registrytest.Always(early(500))), "push blob"},
		{"done too early", registrytest.On("PATCH", uploads, registrytest.Always(early(202))), "push blob"},
		{"forgotten", registrytest.On("PATCH", uploads, registrytest.Always(registrytest.Say(404, "BLOB_UPLOAD_UNKNOWN"))), "push blob"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := registrytest.NewFaulty(t, nil, tt.fault)
			p, err := registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
			if err != nil {
				t.Fatal(err)
			}
			u, err := p.Stream(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = u.Close() }()
			_, err = io.Copy(u, bytes.NewReader(content))
			if err == nil {
				err = u.Commit(d.Digest)
			}
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" {
				registrytest.CheckError(t, err, host, nil, tt.want)
				_ = u.Close()
				// What the caller does then.
				if err := p.Blob(t.Context(), d, "", registrytest.Opener(content)); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Blob(t.Context(), d, "", mustNotOpen(t)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestStreamAnswerLost checks that a commit counts when only its answer is lost.
func TestStreamAnswerLost(t *testing.T) {
	t.Parallel()
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var lost atomic.Bool
	host := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && lost.CompareAndSwap(false, true) {
			h.ServeHTTP(discardWriter{http.Header{}}, r)
			registrytest.Reset(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	p, err := registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	u, err := p.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(u, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(digest.FromString("hello")); err != nil {
		t.Fatal(err)
	}
	if !lost.Load() {
		t.Error("no answer was lost")
	}
}

type discardWriter struct{ header http.Header }

func (w discardWriter) Header() http.Header         { return w.header }
func (w discardWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w discardWriter) WriteHeader(int)             {}

func TestUploadStalls(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("s"), 64<<20) // more than sockets buffer
	d := registrytest.Descriptor("", content)
	idle := func(o *registry.Options) { o.IdleTimeout, o.Patience.Limit = 2*time.Second, -1 }
	// stalling serves a registry that reads nothing of what comes by method.
	stalling := func(t *testing.T, method string) string {
		t.Helper()
		release := make(chan struct{})
		host := registrytest.NewFaulty(t, nil, registrytest.On(method, "/", registrytest.Always(func(http.ResponseWriter, *http.Request) { <-release })))
		t.Cleanup(func() { close(release) })
		return host
	}
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		host := stalling(t, http.MethodPatch)
		p, err := registrytest.NewClient(t, idle).Push(t.Context(), host+"/app:1")
		if err != nil {
			t.Fatal(err)
		}
		u, err := p.Stream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = u.Close() }()
		_, err = io.Copy(u, bytes.NewReader(content))
		registrytest.CheckError(t, err, host, nil, "stalled")
	})
	t.Run("blob", func(t *testing.T) {
		t.Parallel()
		host := stalling(t, http.MethodPut)
		p, err := registrytest.NewClient(t, idle).Push(t.Context(), host+"/app:1")
		if err != nil {
			t.Fatal(err)
		}
		registrytest.CheckError(t, p.Blob(t.Context(), d, "", registrytest.Opener(content)), host, nil, "stalled")
	})
}

// TestSlowProducer checks that a stream may wait for its bytes.
func TestSlowProducer(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.IdleTimeout = 2 * time.Second })
	p, err := c.Push(t.Context(), host+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	u, err := p.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	content := bytes.Repeat([]byte("p"), 3<<20)
	for _, part := range [][]byte{content[:2<<20], content[2<<20:]} {
		if _, err := u.Write(part); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
	}
	if err := u.Commit(digest.FromBytes(content)); err != nil {
		t.Fatal(err)
	}
}

func TestUploadMisuse(t *testing.T) {
	t.Parallel()
	var deleted atomic.Int32
	host := registrytest.NewFaulty(t, nil, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete {
			deleted.Add(1)
		}
		return false
	})
	p, err := registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	u, err := p.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(u, "given up"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := deleted.Load(); n != 1 {
		t.Errorf("the registry was told %d times", n)
	}
	if _, err := io.WriteString(u, "more"); err == nil {
		t.Error("closed upload takes more")
	}
	if err := u.Commit(digest.FromString("given up")); err == nil {
		t.Error("closed upload can be committed")
	}

	u, err = p.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	if _, err := io.WriteString(u, "lie"); err != nil {
		t.Fatal(err)
	}
	registrytest.CheckError(t, u.Commit(digest.FromString("truth")), host, nil, "DIGEST_INVALID")
	if err := u.Commit(digest.FromString("lie")); err == nil {
		t.Error("committed twice")
	}
}

func TestPushByDigest(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, nil)
	f := registrytest.NewFixture(t, registrytest.AMD64, 10)
	d := digest.FromBytes(f.Manifest)
	f.Push(t.Context(), t, c, host+"/app@"+d.String())
	f.Check(t.Context(), t, c, host+"/app@"+d.String())
	f.Check(t.Context(), t, c, host+"/app:ignored@"+d.String())
	p, err := c.Push(t.Context(), host+"/app@"+digest.FromString("other").String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Manifest(t.Context(), f.MediaType, f.Manifest)
	registrytest.CheckError(t, err, host, oci.ErrCorrupt)
	_, err = p.Manifest(t.Context(), f.MediaType, bytes.Repeat([]byte(" "), 5<<20))
	registrytest.CheckError(t, err, host, nil, "4 MiB")
}

// A child of an index has a digest and no tag; too large it is refused as any other.
func TestPushChild(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, nil)
	f := registrytest.NewFixture(t, registrytest.AMD64, 10)
	f.Push(t.Context(), t, c, host+"/app:whole") // for its blobs
	p, err := c.Push(t.Context(), host+"/app:index")
	if err != nil {
		t.Fatal(err)
	}
	body := append(slices.Clip(f.Manifest), '\n')
	d, err := p.Child(t.Context(), f.MediaType, body)
	if err != nil || d != digest.FromBytes(body) {
		t.Fatalf("%s, %v", d, err)
	}
	im, err := c.Resolve(t.Context(), host+"/app@"+d.String(), registrytest.AMD64)
	if err != nil || !bytes.Equal(im.Raw, body) {
		t.Errorf("%v", err)
	}
	if _, err := c.Resolve(t.Context(), host+"/app:index", registrytest.AMD64); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("the tag: %v", err)
	}
	_, err = p.Child(t.Context(), f.MediaType, bytes.Repeat([]byte(" "), 5<<20))
	registrytest.CheckError(t, err, host, nil, "4 MiB")
}

func TestBadReferences(t *testing.T) {
	t.Parallel()
	c := registrytest.NewClient(t, nil)
	for _, ref := range []string{
		"", "UPPER", "localhost:5000/", "localhost:5000/App", "x:", "x:a/b:c d", "https://u:secret@h/x", "x@sha256:1", "x@y@z",
		"localhost:5000/../x:1\n",
	} {
		_, err := c.Resolve(t.Context(), ref, registrytest.AMD64)
		if err == nil || !strings.Contains(err.Error(), "parse reference") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", ref, err)
		}
		if _, err := c.Push(t.Context(), ref); err == nil {
			t.Errorf("%q can be pushed to", ref)
		}
	}
}
