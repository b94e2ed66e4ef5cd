package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/bobbuild/bob/registry/internal/auth"
	"github.com/bobbuild/bob/registry/internal/host"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/semaphore"
)

const (
	// continueTimeout is how long a registry may take to say that it wants a
	// body before it gets it unasked.
	continueTimeout = time.Second
	// bufferSize is what is read and written at once of a stream, bytes.
	bufferSize = 256 << 10
	maxHosts   = 256
	// headerTimeout is how long a host that no credential and no reference names may
	// take to answer.
	headerTimeout = 2 * time.Minute
	// maxAnswerHeader bounds the headers of an answer, bytes.
	maxAnswerHeader = 256 << 10
)

// carriers are transports. They share no connections.
type carriers struct {
	verified, lax http.RoundTripper // lax takes any certificate
}

// to returns the way to a registry.
func (c carriers) to(at host.Address) http.RoundTripper {
	if at.Lax {
		return c.lax
	}
	return c.verified
}

// newCarriers makes carriers; guarded ones reach no address of this machine or of
// its link. proxy is as [http.Transport.Proxy].
func newCarriers(roots *x509.CertPool, proxy proxyFunc, guarded bool) carriers {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}
	t := &http.Transport{
		Proxy:                 proxy,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ExpectContinueTimeout: continueTimeout,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		// Go's HTTP/2 is several times slower at uploads.
		Protocols: new(http.Protocols),
		// Bytes are checked against digests: they must arrive as they were sent.
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxAnswerHeader,
		WriteBufferSize:        bufferSize,
		ReadBufferSize:         bufferSize,
	}
	t.Protocols.SetHTTP1(true)
	lax := t.Clone()
	lax.TLSClientConfig.InsecureSkipVerify = true
	if guarded {
		// No credential and no reference names such a host.
		t.ResponseHeaderTimeout, lax.ResponseHeaderTimeout = headerTimeout, headerTimeout
		return carriers{verified: newGuard(t), lax: newGuard(lax)}
	}
	return carriers{verified: t, lax: lax}
}

// An upstream is a registry host that has answered: how it is reached and what
// it asks of those who come.
type upstream struct {
	host.Address

	registry  name.Registry
	guarded   bool                 // see newCarriers
	challenge *transport.Challenge // nil: it lets everybody in
	home      http.RoundTripper    // to the host
	away      http.RoundTripper    // to others that it names
	patience  patience.Policy
	log       *slog.Logger
}

// hosts finds out, once for each host, how to reach it.
type hosts struct {
	log           *slog.Logger
	patience      patience.Policy
	insecure      bool
	free, guarded carriers
	known         *ledger[*reached]
}

// reached is a host that was asked for, and what is known of it once it has answered.
type reached struct {
	gate  *semaphore.Weighted
	found *upstream
}

func newHosts(o *Options, proxy proxyFunc) *hosts {
	return &hosts{
		log:      o.Log,
		patience: o.Patience,
		insecure: o.Insecure,
		free:     newCarriers(o.Roots, proxy, false),
		guarded:  newCarriers(o.Roots, proxy, true),
		known:    newLedger[*reached](maxHosts),
	}
}

func (h *hosts) upstream(ctx context.Context, reg name.Registry, guarded bool) (*upstream, error) {
	key := fmt.Sprint(reg.RegistryStr(), " ", guarded)
	one := h.known.getOr(key, func() *reached { return &reached{gate: semaphore.NewWeighted(1)} })
	if err := one.gate.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer one.gate.Release(1)
	if one.found != nil {
		return one.found, nil
	}
	waiting := repeater{host: reg.RegistryStr(), log: h.log, attempts: h.policy(guarded).Begin()}
	err := waiting.run(ctx, func() (again bool, err error) {
		one.found, err = h.probe(ctx, reg, guarded)
		return patience.Passing(err), err
	})
	return one.found, err
}

// policy returns the patience with a host. Clients of a mirror have another place to
// ask.
func (h *hosts) policy(mirror bool) patience.Policy {
	if mirror {
		return patience.Policy{Limit: -1}
	}
	return h.patience
}

// probe asks a host for /v2/ by the ways that are allowed for it.
func (h *hosts) probe(ctx context.Context, reg name.Registry, guarded bool) (*upstream, error) {
	local := host.Loopback(reg.RegistryStr())
	var found *upstream
	err := host.First(ctx, host.Ways(reg.RegistryStr(), h.insecure), func(ctx context.Context, at host.Address) (answered bool, err error) {
		found = &upstream{
			Address: at, registry: reg, guarded: guarded,
			home: h.free.to(at), away: h.guarded.verified, patience: h.policy(guarded), log: h.log,
		}
		if guarded {
			found.home = h.guarded.to(at)
		} else if local {
			found.away = h.free.verified // what is on this machine may name others on it
		}
		err = found.ping(ctx)
		_, answered = errors.AsType[*refusal](err)
		return answered, err
	})
	if err != nil {
		return nil, err
	}
	if found.Scheme == "http" && !local {
		h.log.WarnContext(ctx, "a registry does not answer to https: plain HTTP is used", "host", reg.RegistryStr())
	}
	return found, nil
}

// ping asks whether a registry answers, and notes its challenge.
func (up *upstream) ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, up.URL("/v2/").String(), http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := up.home.RoundTrip(req) //nolint:bodyclose // closeBody does
	if err != nil {
		if stall := patience.Stalled(ctx); stall != nil {
			return stall
		}
		if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
			return http.ErrSchemeMismatch
		}
		return err
	}
	defer closeBody(resp.Body)
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		up.challenge = auth.Challenge(resp.Header, up.Scheme == "http")
		return nil
	case resp.StatusCode == http.StatusBadRequest && up.Scheme == "http":
		return errors.New("speaks no plain HTTP")
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return &refusal{
			status: resp.StatusCode, code: "UNKNOWN", message: "the registry has a problem of its own",
			retryAfter: resp.Header.Get("Retry-After"),
		}
	}
	return nil
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// maxDrain is how much of an unwanted body is read so that its connection can be
// used again.
const maxDrain = 64 << 10

func closeBody(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxDrain) // only to keep the connection
	_ = body.Close()                            // nothing was written to it
}
