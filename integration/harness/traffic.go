package harness

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// A Traffic is a server in front of a registry that counts what passes.
type Traffic struct {
	Host   string // host:port, instead of the registry's
	Prefix string // host:port/path, instead of the registry's

	// Registry is what it is in front of.
	Registry *Registry

	server                   *httptest.Server
	requests, sent, received atomic.Int64

	mu  sync.Mutex
	log []string
}

// A Passed is what a registry got and gave, in requests and bytes of bodies.
type Passed struct{ Requests, Sent, Received int64 }

// Since returns what has passed after before.
func (p Passed) Since(before Passed) Passed {
	return Passed{p.Requests - before.Requests, p.Sent - before.Sent, p.Received - before.Received}
}

// NewTraffic starts a server in front of registry. The caller closes it.
func NewTraffic(registry *Registry) *Traffic {
	t := &Traffic{Registry: registry}
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true},
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(&url.URL{Scheme: "http", Host: registry.Host})
			p.Out.Host = p.In.Host
			if p.Out.Body != nil && p.Out.Body != http.NoBody {
				p.Out.Body = &countedBody{p.Out.Body, &t.sent}
			}
		},
		ModifyResponse: func(r *http.Response) error {
			r.Body = &countedBody{r.Body, &t.received}
			return nil
		},
		// A client that goes away, as one does that has seen enough, is no news.
		ErrorLog:     log.New(io.Discard, "", 0),
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	t.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.requests.Add(1)
		t.mu.Lock()
		t.log = append(t.log, r.Method+" "+r.URL.Path)
		t.mu.Unlock()
		proxy.ServeHTTP(w, r)
	}))
	t.Host = strings.TrimPrefix(t.server.URL, "http://")
	t.Prefix = t.Host + strings.TrimPrefix(registry.Prefix, registry.Host)
	return t
}

// Close stops the server.
func (t *Traffic) Close() { t.server.Close() }

// Reset forgets what has passed.
func (t *Traffic) Reset() {
	t.requests.Store(0)
	t.sent.Store(0)
	t.received.Store(0)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.log = nil
}

// Passed returns what has passed.
func (t *Traffic) Passed() Passed {
	return Passed{Requests: t.requests.Load(), Sent: t.sent.Load(), Received: t.received.Load()}
}

// Log returns the methods and paths of the requests that have passed, in their order.
func (t *Traffic) Log() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.log)
}

type countedBody struct {
	io.ReadCloser
	count *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count.Add(int64(n))
	return n, err
}
