package wire

import (
	"errors"
	"net/http"

	"github.com/bobbuild/bob/registry/certs"
	"github.com/bobbuild/bob/registry/internal/host"
)

// A Host carries the requests for one registry, and the requests that they are
// redirected to.
type Host struct {
	host.Address

	network *Network
	home    http.RoundTripper // to the address
}

// Host returns the way to a host.
func (n *Network) Host(at host.Address, c certs.Certificates) *Host {
	home := n.verified
	if at.Lax {
		home = n.unverified
	}
	return &Host{Address: at, network: n, home: c.Carrier(home)}
}

// RoundTrip implements http.RoundTripper. It removes credentials from requests to other
// hosts than the registry. net/http does so on redirects too, but treats subdomains and
// other ports as the same host.
func (h *Host) RoundTrip(req *http.Request) (*http.Response, error) {
	home := host.Same(req.URL, h.Host)
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", h.network.options.UserAgent)
	if !home {
		// A token server gets its credentials by package auth.
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return h.pick(home).RoundTrip(req)
}

func (h *Host) pick(home bool) http.RoundTripper {
	if home {
		return h.home
	}
	return h.network.verified
}

// Carrier carries requests unchanged, each by the transport for its host.
func (h *Host) Carrier() http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		return h.pick(host.Same(req.URL, h.Host)).RoundTrip(req)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

var (
	errTooManyRedirects = errors.New("stopped after 10 redirects")
	errRedirectedWrite  = errors.New("redirect would turn the request into another one")
)

// checkRedirect is the http.Client policy of one host.
func (h *Host) checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 10:
		return errTooManyRedirects
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https" && !h.Lax:
		return host.ErrDowngrade
	case req.Method != via[0].Method:
		return errRedirectedWrite
	}
	return nil
}
