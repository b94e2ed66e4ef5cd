package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/containers/storage/pkg/regexp"
)

const defaultIdle = 60 * time.Second

// Options say how a [Client] behaves. The zero value is right for most.
type Options struct {
	// Transport carries HTTP requests for files. nil is one like net/http's own,
	// which takes proxies from the environment.
	Transport http.RoundTripper
	// CABundle holds certificate authorities, in PEM form, that are trusted beside
	// the machine's by a Transport of nil and for git remotes; empty has none.
	CABundle []byte
	// UserAgent is sent with requests for files; "" is "bob".
	UserAgent string
	// Patience says for how long what fails for a passing reason is tried again.
	Patience patience.Policy
	// Notice, if set, is told in one line of each such failure. It may be called
	// concurrently.
	Notice func(string)
	// IdleTimeout ends an attempt when for so long nothing arrives: of a file no
	// byte; of a repository no byte of its objects, and no word of the server's about
	// them. The list of a repository's references, which arrives at once, may take
	// five times as long in all. 0 is 60 s.
	IdleTimeout time.Duration

	// Secret returns the secret called id, and whether there is one. It is
	// asked for GIT_AUTH_TOKEN and GIT_AUTH_HEADER, with ".HOST" behind them
	// first, and for HTTP_AUTH_TOKEN_HOST and HTTP_AUTH_HEADER_HOST. nil has
	// none.
	Secret func(ctx context.Context, id string) ([]byte, bool)
	// Agent connects to the SSH agent with the keys for ssh remotes. nil: none
	// was given.
	Agent func(context.Context) (net.Conn, error)
	// KnownHosts are files in the format of sshd(8) with the keys of SSH hosts.
	// Files that don't exist are passed over. A host that is in no file is refused.
	KnownHosts []string
	// MaxSize is how many bytes a file, or the tree of a repository, may have; 0 has no
	// bound.
	MaxSize int64
	// TempDir is where repositories are kept while they are read; "" is the
	// system's.
	TempDir string
}

// A Client fetches. It is safe for concurrent use.
type Client struct {
	o    Options
	http *http.Client
}

// New returns a client. It reaches nothing yet.
func New(o Options) *Client {
	if o.UserAgent == "" {
		o.UserAgent = "bob"
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = defaultIdle
	}
	if o.Secret == nil {
		o.Secret = func(context.Context, string) ([]byte, bool) { return nil, false }
	}
	if o.Transport == nil {
		t := &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:   30 * time.Second,
			ExpectContinueTimeout: time.Second,
			ForceAttemptHTTP2:     true,
			// The digest is that of the bytes that were sent.
			DisableCompression: true,
		}
		if len(o.CABundle) > 0 { // reading the machine's authorities takes a while
			if roots, err := x509.SystemCertPool(); err == nil && roots.AppendCertsFromPEM(o.CABundle) {
				t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
			}
		}
		o.Transport = t
	}
	return &Client{o: o, http: &http.Client{Transport: o.Transport}}
}

var userinfo = regexp.Delayed(`^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#]*@`)

// Redact returns the URL or git remote without user and password.
func Redact(address string) string { return userinfo.ReplaceAllString(address, "$1") }

// bare takes off err what net/http says of the request: its URL may hold user
// and password, or be one that a redirect made up.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// statusError is an answer other than success.
type statusError struct {
	code  int
	text  string
	after time.Duration // that the server asks to wait; 0: nothing
}

func (e *statusError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("the server answered %d", e.code)
	}
	return "the server answered " + e.text
}
