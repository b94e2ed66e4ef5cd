package proxy

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"golang.org/x/net/http/httpproxy"
)

// PasswordFor is the password of the login for a repository.
func PasswordFor(c Credentials, repo string) (string, error) {
	parsed, err := name.NewRepository(repo)
	if err != nil {
		return "", err
	}
	login, _ := c.find(parsed)
	return login.Password, nil
}

// SchemeOf returns how a host is spoken to that answers at address.
func SchemeOf(ctx context.Context, o Options, host, address string) (string, error) {
	o.Log = slog.New(slog.DiscardHandler)
	h := newHosts(&o, nil)
	for _, carrier := range []http.RoundTripper{h.free.verified, h.free.lax} {
		carrier.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { //nolint:forcetypeassert // as newCarriers makes it
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	}
	reg, err := name.NewRegistry(host)
	if err != nil {
		return "", err
	}
	up, err := h.upstream(ctx, reg, false)
	if err != nil {
		return "", err
	}
	return up.Scheme, nil
}

// AskVerified asks a proxy whose target is app on a host that srv's certificate is
// for, and returns the status of its answer.
func AskVerified(ctx context.Context, srv *httptest.Server, method, path string) (int, error) {
	p, err := New(Options{Target: "example.com/app:1"})
	if err != nil {
		return 0, err
	}
	carrier := p.hosts.free.verified.(*http.Transport) //nolint:forcetypeassert // as newCarriers makes it
	carrier.TLSClientConfig.RootCAs = x509.NewCertPool()
	carrier.TLSClientConfig.RootCAs.AddCert(srv.Certificate())
	carrier.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, path, http.NoBody))
	return w.Code, nil
}

// Accepts says what a request is taken to be about.
func Accepts(r *http.Request) (repo, ref string, mirror, ok bool) {
	t := parseTarget(r)
	if t == nil {
		return "", "", false, false
	}
	return t.repo, t.ref, t.mirror != nil, true
}

// Through has p reach the network as if the environment named the HTTP proxy at
// address.
func (p *Proxy) Through(address string) {
	environment := httpproxy.Config{HTTPProxy: "http://" + address, HTTPSProxy: "http://" + address}
	find := environment.ProxyFunc()
	p.hosts = newHosts(&Options{Insecure: true, Log: p.log}, func(r *http.Request) (*url.URL, error) { return find(r.URL) })
}

// Hurry has p give what moves too slowly a short time.
func (p *Proxy) Hurry(window time.Duration) {
	p.paces = paces{window: window, manifest: window, least: paceLeast}
}

// Dial has p reach hosts that are free to be anywhere by dial, on a new connection for
// each request.
func (p *Proxy) Dial(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	for _, carrier := range []http.RoundTripper{p.hosts.free.verified, p.hosts.free.lax} {
		t := carrier.(*http.Transport) //nolint:forcetypeassert // as newCarriers makes it
		t.DialContext, t.DisableKeepAlives = dial, true
	}
}

// Upside has p reach every host by t.
func (p *Proxy) Upside(t http.RoundTripper) {
	p.hosts.free, p.hosts.guarded = carriers{t, t}, carriers{t, t}
}
