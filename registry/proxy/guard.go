package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/bobbuild/bob/registry/nearby"
	"github.com/containers/storage/pkg/regexp"
)

const dialTimeout = 30 * time.Second

type proxyFunc func(*http.Request) (*url.URL, error)

// A guard carries requests to every address that isn't nearby. Only hosts that the
// credentials name may be nearby. The addresses of a name are checked when it is
// dialed.
//
// Requests that go through an HTTP proxy of the environment have connections of
// their own: that proxy may be nearby, and its connections are to nothing else.
// Since it is the proxy that looks names up then, a guard refuses what it can tell
// is nearby and leaves the rest to the proxy.
type guard struct {
	proxy   proxyFunc // nil: no HTTP proxy is used
	direct  *http.Transport
	through *http.Transport
}

// newGuard makes a guard of t, whose Proxy it follows.
func newGuard(t *http.Transport) *guard {
	g := &guard{proxy: t.Proxy, direct: t.Clone(), through: t}
	g.direct.Proxy = nil
	g.direct.DialContext = (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout, Control: refuseNearby}).DialContext
	return g
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if g.proxy == nil {
		return g.direct.RoundTrip(r)
	}
	u, err := g.proxy(r)
	if err != nil {
		return nil, err
	}
	if u == nil {
		return g.direct.RoundTrip(r)
	}
	if err := checkName(r.Context(), r.URL.Hostname()); err != nil {
		return nil, err
	}
	return g.through.RoundTrip(r)
}

var errNearby = errors.New("only hosts that the credentials name may be at such an address")

// refuseNearby is a [net.Dialer]'s Control.
func refuseNearby(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	return checkAddress(to.Addr())
}

func checkAddress(addr netip.Addr) error {
	if err := nearby.Check(addr); err != nil {
		return fmt.Errorf("%w: %w", err, errNearby)
	}
	return nil
}

// lookupTimeout bounds the lookup of a name that an HTTP proxy may know better.
const lookupTimeout = 5 * time.Second

// numeric is what C libraries take for an IPv4 address and Go for a name: its last
// part is a number (WHATWG URL, "ends in a number checker").
var numeric = regexp.Delayed(`(?i)(^|\.)([0-9]+|0x[0-9a-f]*)\.?$`)

// checkName refuses a host that is nearby, or has an address that is. A name that
// isn't known here may be known to an HTTP proxy, and passes.
func checkName(ctx context.Context, host string) error {
	if addr, err := netip.ParseAddr(host); err == nil {
		return checkAddress(addr)
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") || numeric.MatchString(name) {
		return fmt.Errorf("%s is an address of this machine, or may be: %w", host, errNearby)
	}
	looking, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(looking, "ip", host)
	if err != nil {
		return context.Cause(ctx)
	}
	for _, addr := range addrs {
		if err := checkAddress(addr); err != nil {
			return fmt.Errorf("%s: %w", host, err)
		}
	}
	return nil
}
