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
	// Conf holds the rules of registries.conf: mirrors for pulls, and which registries
	// are insecure or blocked. nil holds no rules.
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
	// Transport carries the requests. nil is a transport that takes proxies from the
	// environment as every Go program does. An *http.Transport is copied, kept to
	// HTTP/1.1 (Go's HTTP/2 is several times slower at uploads) and made to follow
	// Insecure, Roots, Certificates and CertDirs; any other is used as it is. Socket
	// has no effect on a given Transport.
	Transport http.RoundTripper
	// UserAgent is sent with each request; "" is "bob".
	UserAgent string
	// Patience says for how long requests are retried that fail for a passing reason:
	// there is no answer, or the answer asks to come later. Progress of a download or
	// an upload restarts the time. A registry's Retry-After makes a wait longer. If it
	// exceeds the time left, the request fails.
	Patience patience.Policy
	// IdleTimeout is how long a request may go without moving a byte in either
	// direction; 0 is 60 s. Time in which a producer or consumer of bytes in this
	// process isn't ready doesn't count. After a blob's last byte a registry has five
	// times as long to answer.
	IdleTimeout time.Duration
	// Documents, if set, keeps manifests and configs of images that [Client.Resolve]
	// found, by their digests, so that they are got once.
	Documents Documents
	// Notice, if set, is called with one line for each retry and for each fallback, to
	// plain HTTP or from a mirror. It may be called concurrently.
	Notice func(string)
	// Credential, if set, is called once for each host with the origin of its
	// credential, never with the credential itself. origin is "" if no credential is
	// known. It may be called concurrently.
	Credential func(host, origin string)
}

// Client reaches registries. It is safe for concurrent use, keeps connections open
// between uses, and remembers which repositories have which blobs.
type Client struct {
	keychain     authn.Keychain
	pushKeychain authn.Keychain
	conf         *conf.Rules
	userAgent    string
	insecure     bool
	idle         time.Duration
	credential   func(host, origin string)
	documents    keptDocuments
	retries

	endpoints *endpoints
	blobs     *blobLedger
	news      *news
}

// news holds the texts that a client's callbacks get only once, and the mirrors that
// were found down. It is safe for concurrent use.
type news struct {
	mu   sync.Mutex
	told map[string]bool
	down map[string]bool // hosts of mirrors that can't be reached
}

// first reports whether this is its first call with text.
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

// impatient returns a client that retries nothing, for use where something else can be
// tried.
func (c *Client) impatient() *Client {
	other := *c
	other.patience.Limit = -1
	return &other
}

// New returns a client. It makes no request yet.
func New(o Options) *Client {
	c := &Client{
		keychain:     o.Keychain,
		pushKeychain: o.PushKeychain,
		conf:         o.Conf,
		userAgent:    o.UserAgent,
		insecure:     o.Insecure,
		idle:         o.IdleTimeout,
		credential:   o.Credential,
		documents:    keptDocuments{o.Documents},
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
