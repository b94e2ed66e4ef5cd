package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// behind passes requests on to a registry elsewhere, under the name it is called by.
func behind(t *testing.T, backend string) http.Handler {
	t.Helper()
	target, err := url.Parse("http://" + backend)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
}

// shortBody ends with an error after some bytes.
type shortBody struct {
	io.ReadCloser

	left int64
}

var errCut = errors.New("cut")

func (b *shortBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errCut
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// cutRequest hands on only the first bytes of a request's body, and then ends the
// connection.
func cutRequest(inner http.Handler, after int64) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = &shortBody{r.Body, after}
		inner.ServeHTTP(httptest.NewRecorder(), r)
		registrytest.Reset(w, r)
	}
}

// cutResponse answers with half of the body that it announces.
func cutResponse(inner http.Handler) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		got := httptest.NewRecorder()
		inner.ServeHTTP(got, r)
		maps.Copy(w.Header(), got.Header())
		body := got.Body.Bytes()
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Length", got.Header().Get("Content-Length"))
		}
		w.WriteHeader(got.Code)
		_, _ = w.Write(body[:len(body)/2])
		panic(http.ErrAbortHandler)
	}
}

// loseAnswer has the registry do what it is asked, and tells nobody.
func loseAnswer(inner http.Handler) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(httptest.NewRecorder(), r)
		registrytest.Reset(w, r)
	}
}

// pushAsBuild pushes as a build does: the first layer as a stream, and again as a
// blob when that fails.
func pushAsBuild(ctx context.Context, f *registrytest.Fixture, c *registry.Client, ref string) error {
	p, err := c.Push(ctx, ref)
	if err != nil {
		return err
	}
	if u, err := p.Stream(ctx); err == nil {
		_, _ = io.Copy(u, bytes.NewReader(f.Layers[0])) // Commit tells
		_ = u.Commit(f.Descs[0].Digest)                 // Blob makes up for it
		_ = u.Close()
	}
	for i, layer := range f.Layers {
		if err := p.Blob(ctx, f.Descs[i].Descriptor, "", registrytest.Opener(layer)); err != nil {
			return err
		}
	}
	if err := p.Blob(ctx, registrytest.Descriptor(ocispec.MediaTypeImageConfig, f.Config), "", registrytest.Opener(f.Config)); err != nil {
		return err
	}
	_, err = p.Manifest(ctx, f.MediaType, f.Manifest)
	return err
}

// checkStored compares what a registry has, asked without the package, with the
// fixture.
func checkStored(t *testing.T, f *registrytest.Fixture, host, repo, tag string) {
	t.Helper()
	want := map[string][]byte{
		"manifests/" + tag: f.Manifest,
		"blobs/" + digest.FromBytes(f.Config).String(): f.Config,
	}
	for i, layer := range f.Layers {
		want["blobs/"+f.Descs[i].Digest.String()] = layer
	}
	for path, body := range want {
		status, got := fetch(t, host, repo+"/"+path)
		if status != http.StatusOK || got != string(body) {
			t.Errorf("%s: status %d, %d bytes; want %d bytes", path, status, len(got), len(body))
		}
	}
}

// fetch gets something from a registry without the package.
func fetch(t *testing.T, host, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

// TestEveryRequestFails pushes and pulls an image again and again, and each time
// another of the requests fails in another way: once, after which it has to work,
// or from then on, after which there is a clear error and no tag.
func TestEveryRequestFails(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) string{"distribution": serveDistribution, "embedded": registrytest.ServeEmbedded} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := start(t)
			inner := behind(t, backend)
			faults := map[string]func(http.ResponseWriter, *http.Request){
				"500": registrytest.Say(500, "UNKNOWN"), "502": registrytest.Say(502, ""), "503": registrytest.Say(503, "UNAVAILABLE", "Retry-After", "0"),
				"429": registrytest.Say(429, "TOOMANYREQUESTS", "Retry-After", "0"), "reset": registrytest.Reset, "lost": loseAnswer(inner),
				"cut request": cutRequest(inner, 300), "cut response": cutResponse(inner),
			}
			for kind, fault := range faults {
				for _, lasting := range []bool{false, true} {
					if testing.Short() || lasting && len(kind) == len("500") && kind != "500" {
						continue // one status stands for the others
					}
					t.Run(fmt.Sprintf("%s, lasting %t", kind, lasting), func(t *testing.T) {
						t.Parallel()
						for n := int32(1); ; n++ {
							ref := fmt.Sprintf("%s/n%d-%t", strings.ReplaceAll(kind, " ", "-"), n, lasting)
							if !failNth(t, backend, inner, ref, n, lasting, fault) {
								break
							}
						}
					})
				}
			}
		})
	}
}

// failNth pushes to repo through a proxy whose n-th request, or all from that on,
// meet a fault, and pulls from it. It is false when there were less requests.
func failNth(t *testing.T, backend string, inner http.Handler, repo string, n int32, lasting bool, fault func(http.ResponseWriter, *http.Request)) bool {
	t.Helper()
	var count atomic.Int32
	pushed := registrytest.NewFixture(t, registrytest.AMD64, 3000, 2000)
	host := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if i := count.Add(1); i == n || lasting && i > n {
			fault(w, r)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Patience.Limit, o.Notice = time.Second, nil })
	err := pushAsBuild(t.Context(), pushed, c, host+"/"+repo+":1")
	met := count.Load() >= n
	switch {
	case err == nil:
		checkStored(t, pushed, backend, repo, "1")
	case !lasting:
		t.Errorf("request %d: %v", n, err)
	default:
		registrytest.CheckError(t, err, host, nil, host+"/"+repo)
		if status, _ := fetch(t, backend, repo+"/manifests/1"); status == http.StatusOK {
			// Only when the answer alone was lost.
			if !strings.HasPrefix(repo, "lost") && !strings.HasPrefix(repo, "cut-response") {
				t.Errorf("request %d: there is a tag", n)
			}
			checkStored(t, pushed, backend, repo, "1")
		}
	}
	if lasting && met {
		return true
	}
	im, err := c.Resolve(t.Context(), host+"/"+repo+":1", registrytest.AMD64)
	for i := range pushed.Layers {
		if err == nil {
			var got []byte
			if got, err = registrytest.ReadBlob(t.Context(), im, pushed.Descs[i].Descriptor); err == nil && !bytes.Equal(got, pushed.Layers[i]) {
				t.Errorf("request %d: layer %d has other bytes", n, i)
			}
		}
	}
	if err != nil && !lasting {
		t.Errorf("request %d: %v", n, err)
	}
	if err != nil {
		registrytest.CheckError(t, err, host, nil, host+"/"+repo)
	}
	return count.Load() >= n
}
