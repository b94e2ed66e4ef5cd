package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/bobbuild/bob/registry/internal/host"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/bobbuild/bob/registry/conf"
)

const (
	defaultIdle = 60 * time.Second
	// commitPatience is how many idle times a registry may take to answer
	// once it has all of a blob: those on object stores copy it then.
	commitPatience = 5

	dialTimeout     = 30 * time.Second
	writeBufferSize = 1 << 20
	readBufferSize  = 256 << 10
	maxAnswerHeader = 256 << 10 // bytes of all headers of an answer
)

// Options say how a [Client] behaves. The zero value is right for most.
type Options struct {
	// Insecure accepts any certificate, and plain HTTP from hosts that
	// don't answer to https. Loopback hosts are always treated so.
	Insecure bool
	// Keychain finds credentials. nil is authn.DefaultKeychain: docker's
	// config.json with its credential helpers, else podman's auth.json.
	Keychain authn.Keychain
	// PushKeychain finds those of pushes; nil is Keychain.
	PushKeychain authn.Keychain
	// Conf is what registries.conf says: mirrors for pulls, and which
	// registries are insecure or blocked. nil says nothing.
	Conf *conf.Rules
	// Roots are the authorities that certificates are checked with; nil is the
	// machine's.
	Roots *x509.CertPool
	// Certificates are shown to registries that ask for one, and to no other
	// host.
	Certificates []tls.Certificate
	// CertDirs are directories with a directory of certificates for each host
	// ("registry.example.com:5000"), as docker's and podman's certs.d: *.crt
	// are trusted beside Roots, each *.cert with its *.key is shown. The first
	// that has one for a host counts.
	CertDirs []string
	// Socket is a unix socket that all requests to port 8080 of localhost and
	// 127.0.0.1 travel through; "" is none.
	Socket string
	// Transport carries the requests. nil is one of our own that takes
	// proxies from the environment as every Go program does. An
	// *http.Transport is copied, kept to HTTP/1.1 (Go's HTTP/2 is several
	// times slower at uploads) and made to follow Insecure, Roots,
	// Certificates and CertDirs; any other is used as it is. Socket is for our
	// own.
	Transport http.RoundTripper
	// UserAgent is sent with each request; "" is "bob".
	UserAgent string
	// Patience says for how long what fails for a passing reason is tried again:
	// no answer, or one that asks to come later. Progress of a download or an upload
	// starts the time anew. A registry's Retry-After makes a wait longer; one that is
	// longer than patience lasts ends it.
	Patience patience.Policy
	// IdleTimeout ends a request when for so long no byte moves in either
	// direction; 0 is 60 s. Time in which a producer or consumer of bytes in
	// this process isn't ready doesn't count. A registry has five times as
	// long to answer after a blob's last byte.
	IdleTimeout time.Duration
	// Notice, if set, is told in one line of each retry and of each fall
	// back, to plain HTTP or from a mirror. It may be called concurrently.
	Notice func(string)
	// Credential, if set, is told once of each credential that is used for a
	// host, and of each host that none is known for: where the credential
	// comes from, "" for none; never what it is. It may be called
	// concurrently.
	Credential func(host, origin string)
}

// Client reaches registries. It is safe for concurrent use, keeps connections
// open between uses, and remembers for its life which blobs it has seen where.
type Client struct {
	keychain     authn.Keychain
	pushKeychain authn.Keychain
	conf         *conf.Rules
	userAgent    string
	insecure     bool
	patience     patience.Policy
	idle         time.Duration
	notice       func(string)
	credential   func(host, origin string)
	roots        *x509.CertPool
	certificates []tls.Certificate
	certDirs     []string
	socket       string

	verified   http.RoundTripper // certificates are verified
	unverified http.RoundTripper // they aren't

	*known
}

// known is what a client has found out so far.
type known struct {
	mu        sync.Mutex
	endpoints map[endpointKey]*endpointEntry
	told      map[string]bool // what each callback was told, if once is enough
	down      map[string]bool // hosts of mirrors that can't be reached
	blobs     map[blobKey]*blobEntry
	probed    map[string]bool // repositories that may be pushed to
}

// impatient returns the client for use where something else can be tried: it
// retries nothing.
func (c *Client) impatient() *Client {
	other := *c
	other.patience.Limit = -1
	return &other
}

// first says whether it is called with text for the first time.
func (k *known) first(text string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	before := k.told[text]
	k.told[text] = true
	return !before
}

// New returns a client. It reaches nothing yet.
func New(o Options) *Client {
	c := &Client{
		keychain:     o.Keychain,
		pushKeychain: o.PushKeychain,
		conf:         o.Conf,
		userAgent:    o.UserAgent,
		insecure:     o.Insecure,
		patience:     o.Patience,
		idle:         o.IdleTimeout,
		notice:       o.Notice,
		credential:   o.Credential,
		roots:        o.Roots,
		certificates: o.Certificates,
		certDirs:     o.CertDirs,
		socket:       o.Socket,
		known: &known{
			endpoints: make(map[endpointKey]*endpointEntry),
			told:      make(map[string]bool),
			down:      make(map[string]bool),
			blobs:     make(map[blobKey]*blobEntry),
			probed:    make(map[string]bool),
		},
	}
	if c.keychain == nil {
		c.keychain = authn.DefaultKeychain
	}
	if c.pushKeychain == nil {
		c.pushKeychain = c.keychain
	}
	if c.userAgent == "" {
		c.userAgent = "bob"
	}
	if c.idle <= 0 {
		c.idle = defaultIdle
	}
	if c.notice == nil {
		c.notice = func(string) {}
	}
	if c.credential == nil {
		c.credential = func(string, string) {}
	}
	c.verified, c.unverified = transports(&o)
	return c
}

// transports returns the transport for verified and for unverified certificates.
func transports(o *Options) (verified, unverified http.RoundTripper) {
	var t *http.Transport
	switch given := o.Transport.(type) {
	case nil:
		t = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			OnProxyConnectResponse: checkProxy,
			DialContext:            dialer(o.Socket),
			TLSHandshakeTimeout:    dialTimeout,
			MaxIdleConnsPerHost:    16,
			IdleConnTimeout:        90 * time.Second,
		}
	case *http.Transport:
		t = given.Clone()
	default:
		return given, given
	}
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	t.ForceAttemptHTTP2 = false
	t.TLSNextProto = nil
	if o.Roots != nil {
		if t.TLSClientConfig == nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		t.TLSClientConfig.RootCAs = o.Roots
	}
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.NextProtos = []string{"http/1.1"} // Clone has put h2 there
	}
	// Bytes are checked against digests: they must arrive as they were sent.
	t.DisableCompression = true
	if t.MaxResponseHeaderBytes == 0 {
		t.MaxResponseHeaderBytes = maxAnswerHeader
	}
	t.WriteBufferSize = max(t.WriteBufferSize, writeBufferSize)
	t.ReadBufferSize = max(t.ReadBufferSize, readBufferSize)

	lax := t.Clone()
	if lax.TLSClientConfig == nil {
		lax.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	lax.TLSClientConfig.InsecureSkipVerify = true
	return t, lax
}

// socketHosts are what [Options.Socket] stands for.
func socketHosts() []string { return []string{"localhost:8080", "127.0.0.1:8080"} }

// dialer connects to hosts, or to socket in their place.
func dialer(socket string) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}
	if socket == "" {
		return d.DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if slices.Contains(socketHosts(), address) {
			return d.DialContext(ctx, "unix", socket)
		}
		return d.DialContext(ctx, network, address)
	}
}

// proxyError is a refusal by the proxy that the environment names.
type proxyError struct{ proxy, status string }

func (e *proxyError) Error() string { return "the proxy " + e.proxy + " answers " + e.status }

// checkProxy sees to it that a proxy's refusal isn't taken for the registry's.
func checkProxy(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{proxy.Host, fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
}

// hostTransport carries the requests that are meant for one registry host,
// and what they are redirected to.
type hostTransport struct {
	client *Client
	host   string
	lax    bool              // host's certificate isn't verified
	home   http.RoundTripper // to host
}

// RoundTrip implements http.RoundTripper. Whatever authorises a request leaves
// it when it goes to another host than the registry: net/http strips it on
// redirects too, but counts subdomains and other ports as the same host.
func (t *hostTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	home := host.Same(req.URL, t.host)
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", t.client.userAgent)
	if !home {
		// A token server gets its credentials by package auth.
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return t.pick(home).RoundTrip(req)
}

func (t *hostTransport) pick(home bool) http.RoundTripper {
	if home {
		return t.home
	}
	return t.client.verified
}

// picking carries requests as they are, each by the way that is meant for its host.
func (t *hostTransport) picking() http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		return t.pick(host.Same(req.URL, t.host)).RoundTrip(req)
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
func (t *hostTransport) checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= 10:
		return errTooManyRedirects
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https" && !t.lax:
		return host.ErrDowngrade
	case req.Method != via[0].Method:
		return errRedirectedWrite
	}
	return nil
}
