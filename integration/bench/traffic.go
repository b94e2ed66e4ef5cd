package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/bobbuild/bob/integration/harness"
)

// A traffic is a server before the registry that counts what passes. All builders go
// through it.
type traffic struct {
	registry                 *harness.Registry
	server                   *httptest.Server
	prefix                   string // host:port/path, instead of the registry's
	requests, sent, received atomic.Int64
}

// newTraffic starts one. The caller closes it.
func newTraffic(registry *harness.Registry) *traffic {
	t := &traffic{registry: registry}
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
		proxy.ServeHTTP(w, r)
	}))
	t.prefix = strings.TrimPrefix(t.server.URL, "http://") + strings.TrimPrefix(registry.Prefix, registry.Host)
	return t
}

// since returns what has passed after before, which an earlier call returned.
func (t *traffic) since(before passed) passed {
	return passed{
		Requests: t.requests.Load() - before.Requests,
		Sent:     t.sent.Load() - before.Sent,
		Received: t.received.Load() - before.Received,
	}
}

// A passed is what the registry got and gave, in requests and bytes of bodies.
type passed struct{ Requests, Sent, Received int64 }

type countedBody struct {
	io.ReadCloser
	count *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count.Add(int64(n))
	return n, err
}
