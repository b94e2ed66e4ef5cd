package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/bobbuild/bob/registry/certs"
	"github.com/bobbuild/bob/registry/internal/auth"
	"github.com/bobbuild/bob/registry/internal/host"
	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/semaphore"
)

// endpoint is a registry host that has answered: how it is reached and what it
// asks of those who come.
type endpoint struct {
	*wire.Host

	registry  name.Registry
	challenge *transport.Challenge // nil: the host lets everybody in
}

// endpoints finds out, once for each host, how to reach it. It is safe for concurrent use.
type endpoints struct {
	network *wire.Network
	dirs    certs.Dirs

	mu      sync.Mutex
	entries map[endpointKey]*endpointEntry
}

func newEndpoints(network *wire.Network, dirs certs.Dirs) *endpoints {
	return &endpoints{network: network, dirs: dirs, entries: make(map[endpointKey]*endpointEntry)}
}

// endpointKey is a host and whether plain HTTP and any certificate will do.
type endpointKey struct {
	host     string
	insecure bool
}

// endpointEntry holds the endpoint of one host once it is known.
type endpointEntry struct {
	gate     *semaphore.Weighted
	endpoint *endpoint
}

// find returns the endpoint of a host. r says how patiently it is asked.
func (e *endpoints) find(ctx context.Context, r *retries, reg name.Registry, insecure bool) (*endpoint, error) {
	key := endpointKey{reg.RegistryStr(), insecure}
	e.mu.Lock()
	entry := e.entries[key]
	if entry == nil {
		entry = &endpointEntry{gate: semaphore.NewWeighted(1)}
		e.entries[key] = entry
	}
	e.mu.Unlock()

	if err := entry.gate.Acquire(ctx, 1); err != nil {
		return nil, &Error{Op: opConnect, Host: reference.Host(reg), Err: err}
	}
	defer entry.gate.Release(1)
	if entry.endpoint != nil {
		return entry.endpoint, nil
	}
	found, err := e.probe(ctx, r, reg, insecure)
	if err != nil {
		return nil, err
	}
	entry.endpoint = found
	return found, nil
}

// probe asks host for /v2/ by the schemes that are allowed for it.
//
// go-containerregistry's transport.Ping isn't used: it takes plain HTTP from every
// private address without being asked, but not from "localhost" without a port.
func (e *endpoints) probe(ctx context.Context, r *retries, reg name.Registry, insecure bool) (*endpoint, error) {
	own, err := e.dirs.For(ctx, reference.Host(reg))
	if err != nil {
		return nil, &Error{Op: "read the certificates for", Host: reference.Host(reg), Err: err, permanent: true}
	}
	slow := time.AfterFunc(slowAnswer, func() { r.notice("waiting for " + reference.Host(reg) + " to answer") })
	var found *endpoint
	err = r.run(ctx, opConnect+" "+reference.Host(reg), func() (err error) {
		defer slow.Stop() // from then on other notices tell it
		found, err = firstAnswer(ctx, e.ways(reg, insecure, own))
		return err
	})
	if err == nil && found.Scheme == "http" && !host.Loopback(reg.RegistryStr()) {
		r.notice(reference.Host(reg) + " does not answer to https: plain HTTP is used")
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

// ways returns how a host may be reached, the best way first. A loopback host is reached
// as if --insecure were given for it, as with docker: any certificate will do, and plain
// HTTP.
func (e *endpoints) ways(reg name.Registry, insecure bool, own certs.Certificates) []*endpoint {
	at := reg.RegistryStr()
	way := func(scheme string, lax bool) *endpoint {
		return &endpoint{Host: e.network.Host(host.Address{Scheme: scheme, Host: at, Lax: lax}, own), registry: reg}
	}
	plain := way("http", true)
	switch {
	case e.network.BySocket(at):
		return []*endpoint{plain} // bob proxy
	case insecure || host.Loopback(at):
		return []*endpoint{way("https", true), plain}
	}
	return []*endpoint{way("https", false)}
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

// pingSoon is ping, which a host on this machine must answer to https soon if there
// is another way.
func (ep *endpoint) pingSoon(ctx context.Context, another bool) error {
	if another && ep.Scheme == "https" && host.Loopback(ep.Address.Host) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, loopbackTimeout, &patience.StallError{Request: "GET to " + ep.Address.Host, After: loopbackTimeout})
		defer cancel()
	}
	return ep.ping(ctx)
}

// ping asks whether a registry answers, and notes its challenge.
func (ep *endpoint) ping(ctx context.Context) error {
	fail := func(err error) *Error {
		return &Error{Op: opConnect, Host: reference.Host(ep.registry), Err: err}
	}
	resp, err := ep.Exchange(ctx, &wire.Call{Method: http.MethodGet, URL: ep.URL("/v2/")}, "") //nolint:bodyclose // wire.Drain does
	if err != nil {
		e := fail(err)
		if ep.Scheme == "http" && strings.Contains(err.Error(), `malformed HTTP response "\x15\x03`) {
			e.Err, e.permanent = errSpeaksTLS, true
		}
		return e
	}
	defer wire.Drain(resp.Body)
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
