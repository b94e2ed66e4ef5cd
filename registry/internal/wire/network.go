// Package wire carries single requests to registries. It chooses the connection and the
// certificates, sends credentials to no other host, and ends a request when the
// registry is silent for too long. The caller decides what to request, and whether to
// retry.
package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/bobbuild/bob/registry/internal/host"
)

const (
	dialTimeout     = 30 * time.Second
	writeBufferSize = 1 << 20
	readBufferSize  = 256 << 10
	maxAnswerHeader = 256 << 10 // bytes of all headers of an answer
)

// Options say how hosts are reached.
type Options struct {
	// Transport carries the requests; nil is one of our own. See registry.Options.
	Transport http.RoundTripper
	// Roots are the authorities that certificates are checked with; nil is the machine's.
	Roots *x509.CertPool
	// Socket is a unix socket that all requests to port 8080 of localhost and 127.0.0.1
	// travel through; "" sends them over the network.
	Socket string
	// UserAgent is sent with each request.
	UserAgent string
	// Idle is how long no byte may move in either direction. A registry has five times
	// as long to answer after a blob's last byte.
	Idle time.Duration
}

// A Network is the ways to all hosts. It is safe for concurrent use, and keeps connections
// open between uses.
type Network struct {
	options    Options
	verified   http.RoundTripper // certificates are verified
	unverified http.RoundTripper // they aren't
}

// New returns a network. It makes no request yet.
func New(o Options) *Network {
	n := &Network{options: o}
	n.verified, n.unverified = o.transports()
	return n
}

// transports returns the transport for verified and for unverified certificates.
func (o *Options) transports() (verified, unverified http.RoundTripper) {
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

// BySocket reports whether requests to a host, by plain HTTP, travel through the
// socket.
func (n *Network) BySocket(at string) bool {
	return n.options.Socket != "" && slices.Contains(socketHosts(), host.WithPort(at, "http"))
}

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

// A ProxyError is a refusal by the proxy that the environment names.
type ProxyError struct{ proxy, status string }

// Error names the proxy.
func (e *ProxyError) Error() string { return "the proxy " + e.proxy + " answers " + e.status }

// checkProxy turns a proxy's refusal into a ProxyError, so that it isn't taken for the
// registry's answer.
func checkProxy(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &ProxyError{proxy.Host, fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))}
}
