// Package host compares the hosts of registries, and decides where their answers may
// lead. Credentials are only ever sent to one host.
package host

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// Loopback reports whether host, with or without a port, is this machine: localhost,
// 127.0.0.0/8 or ::1. Names are not looked up.
func Loopback(host string) bool {
	addr, ok := address(host)
	return ok && addr.IsLoopback()
}

// Near reports whether host, with or without a port, is this machine or a private
// address (RFC 1918, RFC 4193). Names are not looked up.
func Near(host string) bool {
	addr, ok := address(host)
	return ok && (addr.IsLoopback() || addr.IsPrivate())
}

// address returns the address in host, with or without a port. localhost is the only
// name with an address.
func address(host string) (addr netip.Addr, ok bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "localhost" {
		host = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(host)
	return addr, err == nil
}

// Same reports whether u is on host (name[:port]). A missing port stands for the port
// of u's scheme.
func Same(u *url.URL, host string) bool {
	return WithPort(u.Host, u.Scheme) == WithPort(host, u.Scheme)
}

// WithPort adds the port of the scheme, http or https, to a host without one.
func WithPort(host, scheme string) string {
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

// An Address is where a registry answers.
type Address struct {
	Scheme string // http or https
	Host   string // name[:port]
	Lax    bool   // any certificate will do
}

// URL returns the URL of a path such as "/v2/".
func (a Address) URL(path string) *url.URL {
	return &url.URL{Scheme: a.Scheme, Host: a.Host, Path: path}
}

// Is reports whether u is at the address.
func (a Address) Is(u *url.URL) bool { return u.Scheme == a.Scheme && Same(u, a.Host) }

var (
	// ErrNoLocation says that an answer lacks the Location that it should have.
	ErrNoLocation = errors.New("the registry does not say where the upload goes on (no usable Location header)")
	// ErrDowngrade says that an answer leads from https to another host by plain HTTP.
	ErrDowngrade = errors.New("redirect from https to plain http refused")
)

// Follow reads the Location of the answer to a request for base. It may be relative, be
// on another host, and hold a query that stays as it is. Where a registry behind a proxy
// that ends TLS writes http, the registry itself is meant all the same. Another host may
// not be protected worse than the registry.
func (a Address) Follow(base *url.URL, location string) (*url.URL, error) {
	u, err := base.Parse(location)
	if err != nil || location == "" || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, ErrNoLocation
	}
	u.User, u.Fragment = nil, ""
	home := *u
	home.Scheme = a.Scheme
	switch {
	case a.Is(&home), Same(u, a.Host):
		u.Scheme, u.Host = a.Scheme, a.Host
	case u.Scheme == "http" && a.Scheme == "https" && !a.Lax:
		return nil, ErrDowngrade
	}
	return u, nil
}
