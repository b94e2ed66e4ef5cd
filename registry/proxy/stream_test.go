package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/bobbuild/bob/registry/proxy"
)

// A sink is a registry that takes uploads and gives blobs of any size.
type sink struct {
	blob     int64         // size of blobs that it gives
	got      atomic.Int64  // bytes of uploads
	received func(n int64) // told of each part of an upload; may be nil
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		say(202, "Location", "/v2/app/blobs/uploads/u")(w, r)
	case http.MethodGet:
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(s.blob, 10))
		_, _ = io.CopyN(w, zeros{}, s.blob)
	default:
		buffer := make([]byte, 64<<10)
		for {
			n, err := r.Body.Read(buffer)
			got := s.got.Add(int64(n))
			if s.received != nil {
				s.received(got)
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
		}
		if r.Method == http.MethodPatch {
			say(202, "Location", "/v2/app/blobs/uploads/u", "Range", "0-1")(w, r)
			return
		}
		w.WriteHeader(201)
	}
}

// zeros is an endless stream.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// live returns the bytes on the heap that are in use.
func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestConstantMemory passes 256 MiB in each direction, with and without a
// known size, and looks at the heap on the way: client, proxy and registry together.
func TestConstantMemory(t *testing.T) { //nolint:paralleltest // it measures the heap of the process
	const size, step, most = 256 << 20, 32 << 20, 24 << 20
	registry := &sink{blob: size}
	s := start(t, proxy.Options{Target: serve(t, registry) + "/app:1"})
	begin := live()
	var peak uint64
	next := int64(step)
	registry.received = func(n int64) {
		if n >= next {
			next += step
			peak = max(peak, live())
		}
	}
	for _, method := range []string{http.MethodPut, http.MethodPatch} {
		registry.got.Store(0)
		next, peak = step, 0
		location := s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil).header.Get("Location")
		body := io.LimitReader(zeros{}, size)
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.host+location+"?digest="+someDigest, body)
		if err != nil {
			t.Fatal(err)
		}
		if method == http.MethodPut {
			req.ContentLength = size
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := registry.got.Load(); got != size || resp.StatusCode/100 != 2 {
			t.Errorf("%s: %d bytes arrived, status %d", method, got, resp.StatusCode)
		}
		if peak == 0 || peak > begin+most {
			t.Errorf("%s: %d bytes of heap on the way, %d before", method, peak, begin)
		}
	}

	resp, err := http.Get("http://" + s.host + "/v2/target/blobs/" + someDigest)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	peak = 0
	for range size / step {
		if _, err := io.CopyN(io.Discard, resp.Body, step); err != nil {
			t.Fatal(err)
		}
		peak = max(peak, live())
	}
	if peak > begin+most {
		t.Errorf("pull: %d bytes of heap on the way, %d before", peak, begin)
	}
}

// TestStreams wants the beginning of an upload at the registry before its end is
// made.
func TestStreams(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	arrive := sync.OnceFunc(func() { close(arrived) })
	registry := &sink{received: func(n int64) {
		if n == 1<<20 {
			arrive()
		}
	}}
	s := start(t, proxy.Options{Target: serve(t, registry) + "/app:1"})
	location := s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil).header.Get("Location")
	r, w := io.Pipe()
	go func() {
		_, err := w.Write(make([]byte, 1<<20))
		<-arrived
		_ = w.CloseWithError(err)
	}()
	s.want(202, http.MethodPatch, location, r)
}

// TestBrokenPull has a registry that breaks off: the client must see it.
func TestBrokenPull(t *testing.T) {
	t.Parallel()
	for name, length := range map[string]string{"known size": "100", "unknown size": ""} {
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush() //nolint:forcetypeassert // the server's are
			panic(http.ErrAbortHandler)
		}))
		s := start(t, proxy.Options{Target: host + "/app:1"})
		resp, err := http.Get("http://" + s.host + "/v2/target/blobs/" + someDigest)
		if err != nil {
			continue // it sees it early
		}
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%s: the client takes %q for all of it", name, body)
		}
		_ = resp.Body.Close()
	}
}

// TestRanges resumes a pull.
func TestRanges(t *testing.T) {
	t.Parallel()
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("0123456789"))
	}))
	s := start(t, proxy.Options{Target: host + "/app:1"})
	r := s.want(206, http.MethodGet, "/v2/target/blobs/"+someDigest, nil, "Range", "bytes=4-")
	if r.body != "456789" || r.header.Get("Content-Range") != "bytes 4-9/10" {
		t.Errorf("%q %v", r.body, r.header)
	}
	s.want(416, http.MethodGet, "/v2/target/blobs/"+someDigest, nil, "Range", "bytes=40-")
}

// TestClientLeaves ends the registry's request when the client goes away.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	begun, ended := make(chan struct{}), make(chan struct{})
	host := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		close(begun)
		<-r.Context().Done()
		close(ended)
	}))
	s := start(t, proxy.Options{Target: host + "/app:1"})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.host+"/v2/target/blobs/"+someDigest, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
		_ = resp.Body.Close()
		t.Error("there was an answer")
	}
	<-ended
}

// TestUpstreamFailures passes on what the client may try again as such.
func TestUpstreamFailures(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{429: 429, 500: 500, 502: 502, 503: 503, 404: 404, 403: 403, 400: 400, 301: 502} {
		host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				say(status, "Retry-After", "7")(w, r)
			}
		}))
		s := start(t, proxy.Options{Target: host + "/app:1"})
		r := s.want(want, http.MethodPost, "/v2/target/blobs/uploads/", nil)
		if got := r.header.Get("Retry-After"); status >= 400 && got != "7" {
			t.Errorf("%d: Retry-After %q", status, got)
		}
		_ = r.code()
	}
	busy := start(t, proxy.Options{Target: serve(t, say(503, "Retry-After", "7")) + "/app:1"})
	if r := busy.want(503, http.MethodPost, "/v2/target/blobs/uploads/", nil); r.header.Get("Retry-After") != "7" {
		t.Errorf("%v", r.header)
	}
	gone := start(t, proxy.Options{Target: "127.0.0.1:1/app:1"})
	gone.want(502, http.MethodPost, "/v2/target/blobs/uploads/", nil)
}

// TestDrain ends the proxy in the middle of a push: the push comes to its manifest,
// and no other begins.
func TestDrain(t *testing.T) {
	t.Parallel()
	host := serve(t, images())
	s := start(t, proxy.Options{Base: host + "/base:1", Target: host + "/app:1"})
	if err := s.proxy.Drain(t.Context(), time.Hour); err != nil {
		t.Fatal("nothing to wait for:", err)
	}
	s.want(503, http.MethodPost, "/v2/target/blobs/uploads/", nil)

	s = start(t, proxy.Options{Base: host + "/base:1", Target: host + "/app:1"})
	s.upload("target", []byte("layer"))
	drained := make(chan error, 1)
	go func() { drained <- s.proxy.Drain(t.Context(), time.Hour) }()
	for s.ask(http.MethodPost, "/v2/base/blobs/uploads/", nil).status != 503 {
		// Until Drain has begun, pushes to base begin; they end here.
		s.want(201, http.MethodPut, "/v2/base/manifests/1", strings.NewReader(emptyIndex), "Content-Type", indexType)
	}
	s.upload("target", []byte("config"))
	select {
	case err := <-drained:
		t.Fatal("it didn't wait for the manifest:", err)
	default:
	}
	s.want(201, http.MethodPut, "/v2/target/manifests/"+digest.FromString(emptyIndex).String(), strings.NewReader(emptyIndex), "Content-Type", indexType)
	select {
	case err := <-drained:
		t.Fatal("a manifest by digest isn't the last:", err)
	default:
	}
	s.want(201, http.MethodPut, "/v2/target/manifests/1", strings.NewReader(emptyIndex), "Content-Type", indexType)
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}

const (
	indexType  = "application/vnd.oci.image.index.v1+json"
	emptyIndex = `{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[]}`
)

// TestDrainPatience gives up a push that doesn't go on, but none that has a request
// running.
func TestDrainPatience(t *testing.T) {
	t.Parallel()
	registry := new(sink)
	begun, goOn := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	registry.received = func(int64) { begin() }
	s := start(t, proxy.Options{Target: serve(t, registry) + "/app:1"})
	location := s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil).header.Get("Location")
	r, w := io.Pipe()
	go func() {
		_, _ = io.Copy(w, bytes.NewReader([]byte("x")))
		<-goOn
		_ = w.Close()
	}()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		s.want(202, http.MethodPatch, location, r)
	}()
	<-begun
	drained := make(chan error, 1)
	go func() { drained <- s.proxy.Drain(t.Context(), time.Nanosecond) }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.proxy.Drain(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case err := <-drained:
		t.Fatal("it gave up a running request:", err)
	default:
	}
	close(goOn)
	<-sent
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}

func BenchmarkPush(b *testing.B) {
	const size = 256 << 20
	registry := new(sink)
	host := benchmark(b, registry)
	b.SetBytes(size)
	for b.Loop() {
		resp, err := http.Post("http://"+host+"/v2/target/blobs/uploads/", "", nil)
		if err != nil {
			b.Fatal(err)
		}
		_ = resp.Body.Close()
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPut, "http://"+host+resp.Header.Get("Location")+"?digest="+someDigest, io.LimitReader(zeros{}, size))
		if err != nil {
			b.Fatal(err)
		}
		req.ContentLength = size
		if resp, err = http.DefaultClient.Do(req); err != nil {
			b.Fatal(err)
		}
		_ = resp.Body.Close()
	}
}

func BenchmarkPull(b *testing.B) {
	const size = 256 << 20
	host := benchmark(b, &sink{blob: size})
	b.SetBytes(size)
	for b.Loop() {
		resp, err := http.Get("http://" + host + "/v2/target/blobs/" + someDigest)
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
			b.Fatal(n, err)
		}
		_ = resp.Body.Close()
	}
}

func benchmark(b *testing.B, registry http.Handler) string {
	b.Helper()
	p, err := proxy.New(proxy.Options{Target: serve(b, registry) + "/app:1"})
	if err != nil {
		b.Fatal(err)
	}
	return serve(b, p)
}
