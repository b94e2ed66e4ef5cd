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

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bobbuild/bob/registry"
	embedded "github.com/bobbuild/bob/registry/serve"

	"github.com/bobbuild/bob/registry/oci"
)

func TestPushFaults(t *testing.T) {
	t.Parallel()
	f := newFixture(t, amd64, 100, 3<<20)
	breakMiddle := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
		reset(w, r)
	}
	const uploads = "/blobs/uploads/"
	tests := []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		want  []string // in the error; none: it works
		is    error
	}{
		{"POST 500 once", on("POST", uploads, times(1, say(500, "UNKNOWN"))), nil, nil},
		{"POST reset once", on("POST", uploads, times(1, reset)), nil, nil},
		{"HEAD 503 once", on("HEAD", "/blobs/", times(1, say(503, "UNAVAILABLE"))), nil, nil},
		{"HEAD refused", on("HEAD", "/blobs/", always(say(403, "DENIED"))), nil, nil},
		{"PUT 500 once", on("PUT", uploads, times(1, say(500, "UNKNOWN"))), nil, nil},
		{"PUT 429 once", on("PUT", uploads, times(1, say(429, "TOOMANYREQUESTS", "Retry-After", "0"))), nil, nil},
		{"PUT reset once", on("PUT", uploads, times(1, reset)), nil, nil},
		{"PUT broken in the middle", on("PUT", uploads, times(2, breakMiddle)), nil, nil},
		{"blobs not seen yet", on("PUT", "/manifests/", times(2, say(400, "MANIFEST_BLOB_UNKNOWN"))), nil, nil},
		{"manifest 502 once", on("PUT", "/manifests/", times(1, say(502, "UNKNOWN"))), nil, nil},
		{
			"denied at once", on("POST", uploads, always(say(403, "DENIED"))),
			[]string{"prepare push to", "access denied", "right to push to this repository", "said so"},
			registry.ErrDenied,
		},
		{
			"not logged in", on("POST", uploads, always(say(401, "UNAUTHORIZED"))),
			[]string{"prepare push to", "docker login"},
			registry.ErrDenied,
		},
		{"no Location", on("POST", uploads, always(say(202, ""))), []string{"Location"}, nil},
		{"odd Location", on("POST", uploads, always(say(202, "", "Location", "file:///etc/passwd"))), []string{"Location"}, nil},
		{"too large", on("PUT", uploads, always(say(413, "SIZE_INVALID"))), []string{"so large a body", "client_max_body_size"}, nil},
		{"disk full", on("PUT", uploads, always(say(507, "UNKNOWN"))), []string{"507", "tried 1"}, nil},
		{
			"stored as another", on("PUT", uploads, always(say(201, "", "Docker-Content-Digest", digest.FromString("x").String()))),
			[]string{"the registry stored it as"},
			oci.ErrCorrupt,
		},
		{
			"manifest refused", on("PUT", "/manifests/", always(say(400, "MANIFEST_INVALID"))),
			[]string{"push manifest", "/app:1", "400", "MANIFEST_INVALID", "said so"},
			nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newFaulty(t, nil, tt.fault)
			c := newClient(t, nil)
			err := pushBlobs(t, c, f, host+"/app:1")
			if len(tt.want) > 0 {
				checkError(t, err, host, tt.is, tt.want...)
				if _, err := c.Resolve(t.Context(), host+"/app:1", amd64); !errors.Is(err, oci.ErrNotFound) {
					t.Errorf("after a failed push the tag is there: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.check(t.Context(), t, c, host+"/app:1")
		})
	}
}

func pushBlobs(t *testing.T, c *registry.Client, f *fixture, ref string) error {
	t.Helper()
	p, err := c.Push(t.Context(), ref)
	if err != nil {
		return err
	}
	for i, layer := range f.layers {
		if err := p.Blob(t.Context(), f.descs[i].Descriptor, "", opener(layer)); err != nil {
			return err
		}
	}
	config := descriptor(ocispec.MediaTypeImageConfig, f.config)
	if err := p.Blob(t.Context(), config, "", opener(f.config)); err != nil {
		return err
	}
	_, err = p.Manifest(t.Context(), f.mediaType, f.manifest)
	return err
}

func TestPushBadSource(t *testing.T) {
	t.Parallel()
	errDisk := errors.New("disk on fire")
	content := bytes.Repeat([]byte("b"), 2<<20)
	d := descriptor("", content)
	tests := map[string]struct {
		open func() (io.ReadCloser, error)
		is   error
		want string
	}{
		"does not open": {func() (io.ReadCloser, error) { return nil, errDisk }, errDisk, "disk on fire"},
		"breaks": {func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(content[:1<<20]), brokenReader{errDisk})), nil
		}, errDisk, "disk on fire"},
		"too short":   {opener(content[:1000]), oci.ErrCorrupt, "2097152 bytes"},
		"too long":    {opener(append(content, 'x')), nil, ""}, // caught by whoever is first
		"other bytes": {opener(bytes.Repeat([]byte("c"), 2<<20)), nil, "DIGEST_INVALID"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := serveEmbedded(t)
			notices := 0
			c := newClient(t, func(o *registry.Options) { o.Notice = func(string) { notices++ } })
			p, err := c.Push(t.Context(), host+"/app:1")
			if err != nil {
				t.Fatal(err)
			}
			err = p.Blob(t.Context(), d, "", tt.open)
			if tt.want == "" && err == nil {
				return
			}
			checkError(t, err, host, tt.is, "push blob", d.Digest.String(), tt.want)
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
	d := descriptor("", content)
	early := func(status int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, 10_000)
			say(status, "UNKNOWN")(w, r)
		}
	}
	const uploads = "/blobs/uploads/"
	tests := []struct {
		name  string
		fault func(http.ResponseWriter, *http.Request) bool
		want  string // "": it works
	}{
		{"none", harmless, ""},
		{"commit 500 once", on("PUT", uploads, times(1, say(500, "UNKNOWN"))), ""},
		{"commit reset once", on("PUT", uploads, times(1, reset)), ""},
		{"reset", on("PATCH", uploads, always(reset)), "push blob"},
		{"refused in the middle", on("PATCH", uploads, always(early(500))), "push blob"},
		{"done too early", on("PATCH", uploads, always(early(202))), "push blob"},
		{"forgotten", on("PATCH", uploads, always(say(404, "BLOB_UPLOAD_UNKNOWN"))), "push blob"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			host := newFaulty(t, nil, tt.fault)
			p, err := newClient(t, nil).Push(t.Context(), host+"/app:1")
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
				checkError(t, err, host, nil, tt.want)
				_ = u.Close()
				// What the caller does then.
				if err := p.Blob(t.Context(), d, "", opener(content)); err != nil {
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
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && lost.CompareAndSwap(false, true) {
			h.ServeHTTP(discardWriter{http.Header{}}, r)
			reset(w, r)
			return
		}
		h.ServeHTTP(w, r)
	}))
	p, err := newClient(t, nil).Push(t.Context(), host+"/app:1")
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
	d := descriptor("", content)
	idle := func(o *registry.Options) { o.IdleTimeout, o.Patience.Limit = 2*time.Second, -1 }
	// stalling serves a registry that reads nothing of what comes by method.
	stalling := func(t *testing.T, method string) string {
		t.Helper()
		release := make(chan struct{})
		host := newFaulty(t, nil, on(method, "/", always(func(http.ResponseWriter, *http.Request) { <-release })))
		t.Cleanup(func() { close(release) })
		return host
	}
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		host := stalling(t, http.MethodPatch)
		p, err := newClient(t, idle).Push(t.Context(), host+"/app:1")
		if err != nil {
			t.Fatal(err)
		}
		u, err := p.Stream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = u.Close() }()
		_, err = io.Copy(u, bytes.NewReader(content))
		checkError(t, err, host, nil, "stalled")
	})
	t.Run("blob", func(t *testing.T) {
		t.Parallel()
		host := stalling(t, http.MethodPut)
		p, err := newClient(t, idle).Push(t.Context(), host+"/app:1")
		if err != nil {
			t.Fatal(err)
		}
		checkError(t, p.Blob(t.Context(), d, "", opener(content)), host, nil, "stalled")
	})
}

// TestSlowProducer checks that a stream may wait for its bytes.
func TestSlowProducer(t *testing.T) {
	t.Parallel()
	host := serveEmbedded(t)
	c := newClient(t, func(o *registry.Options) { o.IdleTimeout = 2 * time.Second })
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
	host := newFaulty(t, nil, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete {
			deleted.Add(1)
		}
		return false
	})
	p, err := newClient(t, nil).Push(t.Context(), host+"/app:1")
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
	checkError(t, u.Commit(digest.FromString("truth")), host, nil, "DIGEST_INVALID")
	if err := u.Commit(digest.FromString("lie")); err == nil {
		t.Error("committed twice")
	}
}

func TestPushByDigest(t *testing.T) {
	t.Parallel()
	host := serveEmbedded(t)
	c := newClient(t, nil)
	f := newFixture(t, amd64, 10)
	d := digest.FromBytes(f.manifest)
	f.push(t.Context(), t, c, host+"/app@"+d.String())
	f.check(t.Context(), t, c, host+"/app@"+d.String())
	f.check(t.Context(), t, c, host+"/app:ignored@"+d.String())
	p, err := c.Push(t.Context(), host+"/app@"+digest.FromString("other").String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Manifest(t.Context(), f.mediaType, f.manifest)
	checkError(t, err, host, oci.ErrCorrupt)
	_, err = p.Manifest(t.Context(), f.mediaType, bytes.Repeat([]byte(" "), 5<<20))
	checkError(t, err, host, nil, "4 MiB")
}

// A child of an index has a digest and no tag; too large it is refused as any other.
func TestPushChild(t *testing.T) {
	t.Parallel()
	host := serveEmbedded(t)
	c := newClient(t, nil)
	f := newFixture(t, amd64, 10)
	f.push(t.Context(), t, c, host+"/app:whole") // for its blobs
	p, err := c.Push(t.Context(), host+"/app:index")
	if err != nil {
		t.Fatal(err)
	}
	body := append(slices.Clip(f.manifest), '\n')
	d, err := p.Child(t.Context(), f.mediaType, body)
	if err != nil || d != digest.FromBytes(body) {
		t.Fatalf("%s, %v", d, err)
	}
	im, err := c.Resolve(t.Context(), host+"/app@"+d.String(), amd64)
	if err != nil || !bytes.Equal(im.Raw, body) {
		t.Errorf("%v", err)
	}
	if _, err := c.Resolve(t.Context(), host+"/app:index", amd64); !errors.Is(err, oci.ErrNotFound) {
		t.Errorf("the tag: %v", err)
	}
	_, err = p.Child(t.Context(), f.mediaType, bytes.Repeat([]byte(" "), 5<<20))
	checkError(t, err, host, nil, "4 MiB")
}

func TestBadReferences(t *testing.T) {
	t.Parallel()
	c := newClient(t, nil)
	for _, ref := range []string{
		"", "UPPER", "localhost:5000/", "localhost:5000/App", "x:", "x:a/b:c d", "https://u:secret@h/x", "x@sha256:1", "x@y@z",
		"localhost:5000/../x:1\n",
	} {
		_, err := c.Resolve(t.Context(), ref, amd64)
		if err == nil || !strings.Contains(err.Error(), "parse reference") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", ref, err)
		}
		if _, err := c.Push(t.Context(), ref); err == nil {
			t.Errorf("%q can be pushed to", ref)
		}
	}
}
