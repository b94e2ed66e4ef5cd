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
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/semaphore"
)

const (
	dialTimeout = 30 * time.Second
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

// carriers are the ways to the network. What is carried by one is never carried
// over the connections of another.
type carriers struct {
	verified, lax http.RoundTripper // lax takes any certificate
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
		// Nobody answers for such a host.
		t.ResponseHeaderTimeout, lax.ResponseHeaderTimeout = headerTimeout, headerTimeout
		return carriers{verified: newGuard(t), lax: newGuard(lax)}
	}
	return carriers{verified: t, lax: lax}
}

// An upstream is a registry host that has answered: how it is reached and what
// it asks of those who come.
type upstream struct {
	registry  name.Registry
	scheme    string
	lax       bool                 // its certificate isn't verified
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
	known         *ledger[*host]
}

type host struct {
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
		known:    newLedger[*host](maxHosts),
	}
}

func (h *hosts) upstream(ctx context.Context, reg name.Registry, guarded bool) (*upstream, error) {
	key := fmt.Sprint(reg.RegistryStr(), " ", guarded)
	one := h.known.getOr(key, func() *host { return &host{gate: semaphore.NewWeighted(1)} })
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

// policy is how patient the proxy is with a host. Whoever asks a mirror has another
// place to ask.
func (h *hosts) policy(mirror bool) patience.Policy {
	if mirror {
		return patience.Policy{Limit: -1}
	}
	return h.patience
}

// probe asks a host for /v2/ by the schemes that are allowed for it.
//
// transport.Ping isn't used: it takes plain HTTP from every private address
// without being asked, and none from "localhost" without a port.
func (h *hosts) probe(ctx context.Context, reg name.Registry, guarded bool) (*upstream, error) {
	local := isLoopback(reg.RegistryStr())
	schemes := []string{"https"}
	switch {
	case local, h.insecure:
		schemes = []string{"https", "http"}
	}
	ways := h.free
	if guarded {
		ways = h.guarded
	}
	var first error
	for _, scheme := range schemes {
		up := &upstream{
			registry: reg, scheme: scheme, lax: local || h.insecure, guarded: guarded,
			home: ways.verified, away: h.guarded.verified, patience: h.policy(guarded), log: h.log,
		}
		if up.lax {
			up.home = ways.lax
		}
		if local && !guarded {
			up.away = h.free.verified // what is on this machine may name others on it
		}
		err := up.pingSoon(ctx, local && scheme == "https")
		if err == nil {
			if scheme == "http" && !local {
				h.log.WarnContext(ctx, "a registry does not answer to https: plain HTTP is used", "host", reg.RegistryStr())
			}
			return up, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if _, answered := errors.AsType[*refusal](err); answered && first == nil {
			return nil, err
		}
		if first == nil || errors.Is(first, http.ErrSchemeMismatch) {
			first = err
		}
	}
	return nil, first
}

// loopbackTimeout is how long a host on this machine may take to answer to https: some
// that speak plain HTTP wait for the end of what they take for a request.
const loopbackTimeout = 10 * time.Second

// pingSoon is ping, which is to be answered soon if there is another way.
func (up *upstream) pingSoon(ctx context.Context, another bool) error {
	if !another {
		return up.ping(ctx)
	}
	soon, cancel := context.WithTimeout(ctx, loopbackTimeout)
	defer cancel()
	err := up.ping(soon)
	if err != nil && ctx.Err() == nil && soon.Err() != nil {
		return os.ErrDeadlineExceeded
	}
	return err
}

// ping asks whether a registry answers, and notes its challenge.
func (up *upstream) ping(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, up.url("/v2/").String(), http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", userAgent)
	resp, err := up.home.RoundTrip(req) //nolint:bodyclose // closeBody does
	if err != nil {
		if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
			return http.ErrSchemeMismatch
		}
		return err
	}
	defer closeBody(resp.Body)
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		up.challenge = up.challengeOf(resp)
		return nil
	case resp.StatusCode == http.StatusBadRequest && up.scheme == "http":
		return errors.New("speaks no plain HTTP")
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return &refusal{
			status: resp.StatusCode, code: "UNKNOWN", message: "the registry has a problem of its own",
			retryAfter: resp.Header.Get("Retry-After"),
		}
	}
	return nil
}

func (up *upstream) url(path string) *url.URL {
	return &url.URL{Scheme: up.scheme, Host: up.registry.RegistryStr(), Path: path}
}

// isHome says whether u is on the registry's own host.
func (up *upstream) isHome(u *url.URL) bool {
	return u.Scheme == up.scheme && withPort(u.Host, u.Scheme) == withPort(up.registry.RegistryStr(), up.scheme)
}

// resolve reads a Location: relative to the request, or on another host. Where a
// registry behind a proxy that ends TLS writes http, its own host is meant
// all the same; another host may not be worse protected than the registry.
func (up *upstream) resolve(base *url.URL, location string) (*url.URL, error) {
	u, err := base.Parse(location)
	if err != nil || location == "" || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("the registry gave no usable Location")
	}
	u.User, u.Fragment = nil, ""
	home := *u
	home.Scheme = up.scheme
	switch {
	case up.isHome(&home), withPort(u.Host, u.Scheme) == withPort(up.registry.RegistryStr(), u.Scheme):
		u.Scheme, u.Host = up.scheme, up.registry.RegistryStr()
	case u.Scheme == "http" && up.scheme == "https" && !up.lax:
		return nil, errors.New("the registry's Location leads from https to plain http")
	}
	return u, nil
}

// challengeOf returns the first challenge of a 401 that can be answered, nil if
// there is none.
func (up *upstream) challengeOf(resp *http.Response) *transport.Challenge {
	for _, header := range resp.Header.Values("WWW-Authenticate") {
		for _, ch := range parseChallenges(header) {
			if scheme := strings.ToLower(ch.Scheme); scheme == "bearer" || scheme == "basic" {
				ch.Insecure = up.scheme == "http"
				return ch
			}
		}
	}
	return nil
}

// authItem is a word of a WWW-Authenticate header, with a value if it is a
// parameter.
var authItem = regexp.MustCompile(`^[\s,]*([^\s,="]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,]*))?`)

// parseChallenges reads a WWW-Authenticate header (RFC 9110 section 11.6.1):
// schemes, each followed by parameters, all separated by commas.
func parseChallenges(header string) []*transport.Challenge {
	var found []*transport.Challenge
	for {
		match := authItem.FindStringSubmatch(header)
		if match == nil {
			return found
		}
		word, value := match[1], match[2]
		header = header[len(match[0]):]
		if value == "" || len(found) == 0 {
			found = append(found, &transport.Challenge{Scheme: word, Parameters: make(map[string]string)})
			continue
		}
		if quoted, ok := strings.CutPrefix(value, `"`); ok {
			value = backslash.ReplaceAllString(strings.TrimSuffix(quoted, `"`), "$1")
		}
		found[len(found)-1].Parameters[strings.ToLower(word)] = value
	}
}

var backslash = regexp.MustCompile(`\\(.)`)

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

// isLoopback says whether host, with or without a port, is this machine:
// localhost, 127.0.0.0/8 or ::1. Names are not looked up.
func isLoopback(host string) bool {
	host, _, err := net.SplitHostPort(withPort(host, "http"))
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && addr.IsLoopback())
}

// withPort adds the port of scheme to a host without one.
func withPort(host, scheme string) string {
	host = strings.ToLower(host)
	if h, port, err := net.SplitHostPort(host); err == nil {
		return net.JoinHostPort(h, port)
	}
	port := "443"
	if scheme == "http" {
		port = "80"
	}
	return net.JoinHostPort(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), port)
}

// bareCause strips what net/http wraps around a cause: it repeats the URL, which
// may hold credentials.
func bareCause(err error) error {
	var u *url.Error
	for errors.As(err, &u) {
		err = u.Err
	}
	return err
}
