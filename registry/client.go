package registry

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"github.com/bobbuild/bob/registry/certs"
	"github.com/bobbuild/bob/registry/conf"
	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/authn"
)

const defaultIdle = 60 * time.Second

// Options say how a [Client] behaves. The zero value is right for most.
type Options struct {
	// Insecure accepts any certificate, and plain HTTP from hosts that
	// don't answer to https. Loopback hosts are always treated so.
	Insecure bool
	// Keychain finds credentials. nil is authn.DefaultKeychain: docker's
	// config.json with its credential helpers, else podman's auth.json.
	Keychain authn.Keychain
	// PushKeychain finds the credentials for pushes; nil is Keychain.
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
	// 127.0.0.1 travel through; "" sends them over the network.
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
	// Credential, if set, is told once for each host where the credential for
	// it comes from, and never what it is. origin is "" if no credential is
	// known. It may be called concurrently.
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
	idle         time.Duration
	credential   func(host, origin string)
	retries

	endpoints *endpoints
	blobs     *blobLedger
	news      *news
}

// news is what a client's callbacks were told, where once is enough, and which mirrors
// were found down. It is safe for concurrent use.
type news struct {
	mu   sync.Mutex
	told map[string]bool
	down map[string]bool // hosts of mirrors that can't be reached
}

// first says whether it is called with text for the first time.
func (n *news) first(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.told[text]
	n.told[text] = true
	return !before
}

// lost notes that a mirror's host can't be reached.
func (n *news) lost(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[host] = true
}

// isLost says whether a mirror's host was found down.
func (n *news) isLost(host string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.down[host]
}

// impatient returns the client for use where something else can be tried: it
// retries nothing.
func (c *Client) impatient() *Client {
	other := *c
	other.patience.Limit = -1
	return &other
}

// New returns a client. It reaches nothing yet.
func New(o Options) *Client {
	c := &Client{
		keychain:     o.Keychain,
		pushKeychain: o.PushKeychain,
		conf:         o.Conf,
		userAgent:    o.UserAgent,
		insecure:     o.Insecure,
		idle:         o.IdleTimeout,
		credential:   o.Credential,
		retries:      retries{o.Patience, o.Notice},
		blobs:        newBlobLedger(),
		news:         &news{told: make(map[string]bool), down: make(map[string]bool)},
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
	network := wire.New(wire.Options{Transport: o.Transport, Roots: o.Roots, Socket: o.Socket, UserAgent: c.userAgent, Idle: c.idle})
	c.endpoints = newEndpoints(network, certs.Dirs{Paths: o.CertDirs, Roots: o.Roots, Own: o.Certificates})
	return c
}
