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

// slowAnswer is how long a host may be silent before that is said.
const slowAnswer = 3 * time.Second

// probe asks a host for /v2/ by the ways that are allowed for it.
func (e *endpoints) probe(ctx context.Context, r *retries, reg name.Registry, insecure bool) (*endpoint, error) {
	own, err := e.dirs.For(ctx, reference.Host(reg))
	if err != nil {
		return nil, &Error{Op: "read the certificates for", Host: reference.Host(reg), Err: err, permanent: true}
	}
	ways := host.Ways(reg.RegistryStr(), insecure)
	if e.network.BySocket(reg.RegistryStr()) { // bob proxy
		ways = []host.Address{{Scheme: "http", Host: reg.RegistryStr(), Lax: true}}
	}
	slow := time.AfterFunc(slowAnswer, func() { r.notice("waiting for " + reference.Host(reg) + " to answer") })
	var found *endpoint
	err = r.run(ctx, opConnect+" "+reference.Host(reg), func() error {
		defer slow.Stop() // from then on other notices tell it
		return host.First(ctx, ways, func(ctx context.Context, at host.Address) (answered bool, err error) {
			found = &endpoint{Host: e.network.Host(at, own), registry: reg}
			err = found.ping(ctx)
			answer, ours := errors.AsType[*Error](err)
			return ours && answer.Status != 0, err
		})
	})
	if err != nil {
		return nil, err
	}
	if found.Scheme == "http" && !host.Loopback(reg.RegistryStr()) {
		r.notice(reference.Host(reg) + " does not answer to https: plain HTTP is used")
	}
	return found, nil
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
