package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/internal/auth"
	"github.com/bobbuild/bob/registry/internal/host"
	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// errSpeaksTLS is what a server says that got plain HTTP and wanted TLS.
var errSpeaksTLS = errors.New("server speaks https, not plain HTTP")

// endpoint is a registry host that has answered: how it is reached and what it
// asks of those who come.
type endpoint struct {
	host.Address

	client    *Client
	registry  name.Registry
	challenge *transport.Challenge // nil: the host lets everybody in
	transport *hostTransport
	http      *http.Client
}

// endpointKey is a host and whether plain HTTP and any certificate will do.
type endpointKey struct {
	host     string
	insecure bool
}

// endpointEntry holds the endpoint of one host once it is known.
type endpointEntry struct {
	gate     gate
	endpoint *endpoint
}

// endpoint finds out, once for each host, how to reach it.
func (c *Client) endpoint(ctx context.Context, reg name.Registry, insecure bool) (*endpoint, error) {
	key := endpointKey{reg.RegistryStr(), insecure}
	c.mu.Lock()
	entry := c.endpoints[key]
	if entry == nil {
		entry = &endpointEntry{gate: newGate()}
		c.endpoints[key] = entry
	}
	c.mu.Unlock()

	if err := entry.gate.lock(ctx); err != nil {
		return nil, &Error{Op: opConnect, Host: reference.Host(reg), Err: err}
	}
	defer entry.gate.unlock()
	if entry.endpoint != nil {
		return entry.endpoint, nil
	}
	found, err := c.probe(ctx, reg, insecure)
	if err != nil {
		return nil, err
	}
	entry.endpoint = found
	return found, nil
}

const opConnect = "connect to"

// probe asks host for /v2/ by the schemes that are allowed for it.
//
// go-containerregistry's transport.Ping isn't used: it takes plain HTTP from
// every private address without being asked, and none from "localhost" without
// a port.
func (c *Client) probe(ctx context.Context, reg name.Registry, insecure bool) (*endpoint, error) {
	certs, err := c.hostCertificates(ctx, reference.Host(reg))
	if err != nil {
		return nil, &Error{Op: "read the certificates for", Host: reference.Host(reg), Err: err, permanent: true}
	}
	slow := time.AfterFunc(slowAnswer, func() { c.notice("waiting for " + reference.Host(reg) + " to answer") })
	var found *endpoint
	err = c.run(ctx, opConnect+" "+reference.Host(reg), func() (err error) {
		defer slow.Stop() // from then on other notices tell it
		found, err = firstAnswer(ctx, c.ways(reg, insecure, certs))
		return err
	})
	if err == nil && found.Scheme == "http" && !host.Loopback(reg.RegistryStr()) {
		c.notice(reference.Host(reg) + " does not answer to https: plain HTTP is used")
	}
	return found, err
}

const (
	// slowAnswer is how long a host may be silent before that is said.
	slowAnswer = 3 * time.Second
	// loopbackTimeout is how long a host on this machine may take to answer to https:
	// some that speak plain HTTP wait for the end of what they take for a request.
	loopbackTimeout = 10 * time.Second
)

// ways are how a host may be reached, the best first. As with docker, a loopback host
// is as one that --insecure is given for: any certificate will do, and plain HTTP.
func (c *Client) ways(reg name.Registry, insecure bool, certs hostCertificates) []*endpoint {
	at := reg.RegistryStr()
	plain := c.newEndpoint(reg, "http", true, certs)
	switch {
	case c.socket != "" && slices.Contains(socketHosts(), host.WithPort(at, "http")):
		return []*endpoint{plain} // bob proxy
	case insecure || host.Loopback(at):
		return []*endpoint{c.newEndpoint(reg, "https", true, certs), plain}
	}
	return []*endpoint{c.newEndpoint(reg, "https", false, certs)}
}

// firstAnswer returns the first of ways by which the host answers.
func firstAnswer(ctx context.Context, ways []*endpoint) (*endpoint, error) {
	var first error
	for _, ep := range ways {
		err := ep.pingSoon(ctx, len(ways) > 1)
		if e, ok := errors.AsType[*Error](err); err == nil || ctx.Err() != nil || ok && e.Status != 0 && first == nil {
			return ep, err
		}
		if first == nil || errors.Is(first, http.ErrSchemeMismatch) {
			first = err
		}
	}
	return nil, first
}

func (c *Client) newEndpoint(reg name.Registry, scheme string, lax bool, certs hostCertificates) *endpoint {
	carrier := &hostTransport{client: c, host: reg.RegistryStr(), lax: lax, home: c.verified}
	if lax {
		carrier.home = c.unverified
	}
	carrier.home = certs.carrier(carrier.home)
	return &endpoint{
		Address:   host.Address{Scheme: scheme, Host: reg.RegistryStr(), Lax: lax},
		client:    c,
		registry:  reg,
		transport: carrier,
		http:      &http.Client{Transport: carrier, CheckRedirect: carrier.checkRedirect},
	}
}

// pingSoon is ping, which a host on this machine must answer to https soon if there
// is another way.
func (ep *endpoint) pingSoon(ctx context.Context, another bool) error {
	if another && ep.Scheme == "https" && host.Loopback(ep.Host) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, loopbackTimeout, &patience.StallError{Request: "GET to " + ep.Host, After: loopbackTimeout})
		defer cancel()
	}
	return ep.ping(ctx)
}

// ping asks whether a registry answers, and notes its challenge.
func (ep *endpoint) ping(ctx context.Context) error {
	fail := func(err error) *Error {
		return &Error{Op: opConnect, Host: reference.Host(ep.registry), Err: err}
	}
	resp, err := ep.exchange(ctx, &call{op: opConnect, method: http.MethodGet, url: ep.URL("/v2/")}, "") //nolint:bodyclose // closeBody does
	if err != nil {
		e := fail(err)
		if ep.Scheme == "http" && strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`) {
			e.Err, e.permanent = errSpeaksTLS, true
		}
		return e
	}
	defer closeBody(resp.Body)
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusUnauthorized:
		ep.challenge = auth.Challenge(resp.Header, ep.Scheme == "http")
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // the status says enough
	if ep.Scheme == "http" && resp.StatusCode == http.StatusBadRequest && strings.Contains(string(body), "HTTPS") {
		return fail(errSpeaksTLS)
	}
	e := fail(nil)
	e.fill(resp, body)
	return e
}
