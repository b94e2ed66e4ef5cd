package integration_test

import (
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/bobbuild/bob/integration/harness"
)

// A liar is a registry in this process whose answers a test may spoil.
type liar struct {
	*harness.Registry
	inner http.Handler
	spoil atomic.Pointer[spoiler]
}

// A spoiler answers in place of the registry, or doesn't and returns false.
type spoiler func(w http.ResponseWriter, r *http.Request, inner http.Handler) bool

func newLiar(t *testing.T) *liar {
	t.Helper()
	l := &liar{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if spoil := l.spoil.Load(); spoil == nil || !(*spoil)(w, r, l.inner) {
			l.inner.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	l.Registry = &harness.Registry{Host: host, Prefix: host + "/x"}
	base, err := harness.Busybox(t.Context())
	check(t, err)
	check(t, l.Push(t.Context(), l.Prefix+"/busybox:latest", base))
	return l
}

func isBlob(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

func isManifest(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/")
}

// rewrite answers with the registry's own answer, its body passed through change.
func rewrite(w http.ResponseWriter, r *http.Request, inner http.Handler, change func([]byte) []byte) {
	recorder := httptest.NewRecorder()
	inner.ServeHTTP(recorder, r)
	body := change(recorder.Body.Bytes())
	maps.Copy(w.Header(), recorder.Header())
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(recorder.Code)
	_, _ = w.Write(body)
}

func flip(body []byte) []byte {
	changed := append([]byte(nil), body...)
	changed[len(changed)/2] ^= 0x40
	return changed
}

// times spoils the first n requests that match and lets the rest through.
func times(n int32, match func(*http.Request) bool, answer http.HandlerFunc) spoiler {
	var seen atomic.Int32
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if !match(r) || seen.Add(1) > n {
			return false
		}
		answer(w, r)
		return true
	}
}

func always(match func(*http.Request) bool, change func([]byte) []byte) spoiler {
	return func(w http.ResponseWriter, r *http.Request, inner http.Handler) bool {
		if !match(r) {
			return false
		}
		rewrite(w, r, inner, change)
		return true
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

func isUpload(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/uploads/") }

func isManifestPut(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
}

// TestLyingRegistry: what comes from a registry is checked, what is transient
// is tried again, and every failure names the host.
func TestLyingRegistry(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		spoil spoiler
		code  int
		want  []string // in standard error, any case
	}{
		"honest":                {nil, 0, nil},
		"blob changed":          {always(isBlob, flip), 1, []string{"digest"}},
		"blob short":            {always(isBlob, func(b []byte) []byte { return b[:len(b)-10] }), 1, nil},
		"blob long":             {always(isBlob, func(b []byte) []byte { return append(slices.Clip(b), "more"...) }), 1, nil},
		"blob empty":            {always(isBlob, func([]byte) []byte { return nil }), 1, nil},
		"manifest is no JSON":   {always(isManifest, func([]byte) []byte { return []byte("<html>") }), 1, nil},
		"manifest huge":         {always(isManifest, func([]byte) []byte { return make([]byte, 64<<20) }), 1, nil},
		"blob once broken off":  {times(1, isBlob, hangUp), 0, nil},
		"503 twice":             {times(2, isManifest, status(http.StatusServiceUnavailable)), 0, nil},
		"429 once":              {times(1, isManifest, tooMany), 0, nil},
		"always 500":            {times(1000, isManifest, status(http.StatusInternalServerError)), 1, []string{"500"}},
		"forbidden pull":        {times(1000, isManifest, status(http.StatusForbidden)), 1, []string{"403|denied|forbidden"}},
		"upload broken off":     {times(1, isUpload, hangUp), 0, nil},
		"upload 503 once":       {times(1, isUpload, status(http.StatusServiceUnavailable)), 0, nil},
		"forbidden push":        {times(1000, isUpload, status(http.StatusForbidden)), 1, []string{"403|denied|forbidden"}},
		"manifest refused":      {times(1000, isManifestPut, status(http.StatusBadRequest)), 1, []string{"400"}},
		"manifest put 503 once": {times(1, isManifestPut, status(http.StatusServiceUnavailable)), 0, nil},
		"slow":                  {slow(100 * time.Millisecond), 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			l := newLiar(t)
			b.registry, b.ref = l.Registry, l.Prefix+"/app:1"
			if test.spoil != nil {
				l.spoil.Store(&test.spoil)
			}
			b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN echo hi > /hi\n"})
			result := b.bob("build", "--progress=plain", "-t", b.ref, "context")
			l.spoil.Store(nil)
			if result.Code != test.code {
				t.Fatalf("exit code %d, want %d\n%s", result.Code, test.code, result.Stderr)
			}
			if pushed := has(t, l.Registry, b.ref); pushed != (test.code == 0) {
				t.Errorf("pushed: %v", pushed)
			}
			if test.code == 0 {
				return
			}
			if !strings.Contains(result.Stderr, l.Host) {
				t.Errorf("the host %s is not named:\n%s", l.Host, result.Stderr)
			}
			for _, want := range test.want {
				if !matches(want, result.Stderr) {
					t.Errorf("no %q in:\n%s", want, result.Stderr)
				}
			}
		})
	}
}

func tooMany(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusTooManyRequests)
}

func slow(pause time.Duration) spoiler {
	return func(http.ResponseWriter, *http.Request, http.Handler) bool {
		time.Sleep(pause)
		return false
	}
}

// TestWrongDiffID: a config that lies about what its layers unpack to.
func TestWrongDiffID(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	ref := b.registry.Prefix + "/wrong-diffid:latest"
	check(t, b.registry.PushWrongDiffID(t.Context(), ref))
	b.write(map[string]string{"context/Dockerfile": "FROM " + ref + "\nRUN true\n"})
	result := b.bob("build", "--progress=plain", "-t", b.ref, "context")
	if result.Code != 1 || !matches("diff ?id|digest", result.Stderr) {
		t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
	}
	b.wantAbsent()
}

// TestRegistryHangs: a registry that never answers, at whatever point, doesn't
// keep bob from ending when it is told to.
func TestRegistryHangs(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func(*http.Request) bool{
		"manifest": isManifest, "blob": isBlob, "upload": isUpload, "manifest put": isManifestPut,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			l := newLiar(t)
			asked := make(chan struct{}, 1)
			hang := spoiler(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				if !at(r) {
					return false
				}
				select {
				case asked <- struct{}{}:
				default:
				}
				// A server learns that its client is gone only once the body is read.
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
				return true
			})
			l.spoil.Store(&hang)
			b.registry = l.Registry
			b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN true\n"})
			r, err := lab.Start(t.Context(), harness.Invocation{Dir: b.dir, Args: []string{"build", "-t", l.Prefix + "/app:1", "context"}})
			check(t, err)
			<-asked
			check(t, r.Signal(syscall.SIGINT))
			result, err := r.Wait()
			check(t, err)
			if result.Code != 130 {
				t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
			}
			for _, left := range r.Leftovers() {
				t.Error("left", left)
			}
		})
	}
}
