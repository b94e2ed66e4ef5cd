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
	"regexp"
	"time"
)

const (
	defaultRetries = 3
	defaultBackoff = 500 * time.Millisecond
	defaultIdle    = 60 * time.Second
)

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
	// Retries bounds how often a transient failure of a download is tried
	// again: 0 is 3, less than 0 is never.
	Retries int
	// Backoff is the wait before the first retry, doubled for each further
	// one; 0 is 500 ms.
	Backoff time.Duration
	// IdleTimeout ends an attempt when for so long no byte of a file arrives;
	// 0 is 60 s.
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
	// Those that don't exist are passed over. A host in none of them is refused.
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
	switch {
	case o.Retries == 0:
		o.Retries = defaultRetries
	case o.Retries < 0:
		o.Retries = 0
	}
	if o.Backoff <= 0 {
		o.Backoff = defaultBackoff
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
		if roots, err := x509.SystemCertPool(); err == nil && roots.AppendCertsFromPEM(o.CABundle) {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
		}
		o.Transport = t
	}
	return &Client{o: o, http: &http.Client{Transport: o.Transport}}
}

var userinfo = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9+.-]*://)[^/?#]*@`)

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

// pause waits before the n-th retry, counted from 0.
func (c *Client) pause(ctx context.Context, n int) error {
	t := time.NewTimer(c.o.Backoff << min(n, 5))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// transient reports whether the same request may do better a little later.
func transient(err error) bool {
	if e, ok := errors.AsType[*statusError](err); ok {
		switch e.code {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
		return false
	}
	return errors.As(err, new(net.Error)) || errors.Is(err, errBroken)
}

// errBroken is a body that ended early or stopped coming.
var errBroken = errors.New("the transfer broke off")

// statusError is an answer other than success.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("the server answered %d", e.code)
	}
	return "the server answered " + e.text
}
