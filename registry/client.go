package registry

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	defaultRetries = 5
	defaultBackoff = 500 * time.Millisecond
	defaultIdle    = 60 * time.Second
	// commitPatience is how many idle times a registry may take to answer
	// once it has all of a blob: those on object stores copy it then.
	commitPatience = 5

	dialTimeout     = 30 * time.Second
	writeBufferSize = 1 << 20
	readBufferSize  = 256 << 10
)

// Options say how a [Client] behaves. The zero value is right for most.
type Options struct {
	// Insecure accepts any certificate, and plain HTTP from hosts that
	// don't answer to https. Loopback hosts are always treated so, plain
	// HTTP first.
	Insecure bool
	// Keychain finds credentials. nil is authn.DefaultKeychain: docker's
	// config.json with its credential helpers, else podman's auth.json.
	Keychain authn.Keychain
	// Transport carries the requests. nil is one of our own that takes
	// proxies from the environment as every Go program does. An
	// *http.Transport is copied, kept to HTTP/1.1 (Go's HTTP/2 is several
	// times slower at uploads) and made to follow Insecure; any other is used
	// as it is.
	Transport http.RoundTripper
	// UserAgent is sent with each request; "" is "bob".
	UserAgent string
	// Retries bounds how often a transient failure is tried again: 0 is 5,
	// less than 0 is never. Progress of a download starts the count anew.
	Retries int
	// Backoff is the wait before the first retry, doubled for each further
	// one up to 15 s, with jitter; 0 is 500 ms. A registry's Retry-After
	// makes it longer.
	Backoff time.Duration
	// IdleTimeout ends a request when for so long no byte moves in either
	// direction; 0 is 60 s. Time in which a producer or consumer of bytes in
	// this process isn't ready doesn't count. A registry has five times as
	// long to answer after a blob's last byte.
	IdleTimeout time.Duration
	// Notice, if set, is told in one line of each retry and of each fall
	// back to plain HTTP. It may be called concurrently.
	Notice func(string)
}

// Client reaches registries. It is safe for concurrent use and keeps
// connections open between uses.
type Client struct {
	keychain  authn.Keychain
	userAgent string
	insecure  bool
	retries   int
	backoff   time.Duration
	idle      time.Duration
	notice    func(string)

	verified   http.RoundTripper // certificates are verified
	unverified http.RoundTripper // they aren't

	mu        sync.Mutex
	endpoints map[string]*endpointEntry
}

// New returns a client. It reaches nothing yet.
func New(o Options) *Client {
	c := &Client{
		keychain:  o.Keychain,
		userAgent: o.UserAgent,
		insecure:  o.Insecure,
		retries:   o.Retries,
		backoff:   o.Backoff,
		idle:      o.IdleTimeout,
		notice:    o.Notice,
		endpoints: make(map[string]*endpointEntry),
	}
	if c.keychain == nil {
		c.keychain = authn.DefaultKeychain
	}
	if c.userAgent == "" {
		c.userAgent = "bob"
	}
	switch {
	case c.retries == 0:
		c.retries = defaultRetries
	case c.retries < 0:
		c.retries = 0
	}
	if c.backoff <= 0 {
		c.backoff = defaultBackoff
	}
	if c.idle <= 0 {
		c.idle = defaultIdle
	}
	if c.notice == nil {
		c.notice = func(string) {}
	}
	c.verified, c.unverified = transports(o.Transport)
	return c
}

// transports returns base for verified and for unverified certificates.
func transports(base http.RoundTripper) (verified, unverified http.RoundTripper) {
	var t *http.Transport
	switch given := base.(type) {
	case nil:
		t = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext,
			TLSHandshakeTimeout: dialTimeout,
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     90 * time.Second,
		}
	case *http.Transport:
		t = given.Clone()
	default:
		return base, base
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = nil
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.NextProtos = []string{"http/1.1"} // Clone has put h2 there
	}
	// Bytes are checked against digests: they must arrive as they were sent.
	t.DisableCompression = true
	t.WriteBufferSize = max(t.WriteBufferSize, writeBufferSize)
	t.ReadBufferSize = max(t.ReadBufferSize, readBufferSize)

	lax := t.Clone()
	if lax.TLSClientConfig == nil {
		lax.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	lax.TLSClientConfig.InsecureSkipVerify = true
	return t, lax
}

// hostTransport carries the requests that are meant for one registry host,
// and what they are redirected to.
type hostTransport struct {
	client *Client
	host   string
	lax    bool // host's certificate isn't verified
}

// RoundTrip implements http.RoundTripper. Whatever authorises a request leaves
// it when it goes to another host than the registry: net/http strips it on
// redirects too, but counts subdomains and other ports as the same host.
func (t *hostTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	home := sameHost(req.URL, t.host)
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", t.client.userAgent)
	if !home {
		// A token server gets its credentials by tokenTransport.
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return t.pick(home).RoundTrip(req)
}

func (t *hostTransport) pick(home bool) http.RoundTripper {
	if home && t.lax {
		return t.client.unverified
	}
	return t.client.verified
}

// tokenTransport carries requests to a registry's token server. Its caller
// adds credentials, and only for that server's host.
type tokenTransport struct{ *hostTransport }

// RoundTrip implements http.RoundTripper.
func (t tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", t.client.userAgent)
	return t.pick(sameHost(req.URL, t.host)).RoundTrip(req)
}

var (
	errTooManyRedirects = errors.New("stopped after 10 redirects")
	errDowngrade        = errors.New("redirect from https to plain http refused")
	errRedirectedWrite  = errors.New("redirect would turn the request into another one")
)

// checkRedirect is the http.Client policy of one host.
func (t *hostTransport) checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 10:
		return errTooManyRedirects
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https" && !t.lax:
		return errDowngrade
	case req.Method != via[0].Method:
		return errRedirectedWrite
	}
	return nil
}
