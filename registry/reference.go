package registry

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// hubHost is how references write Docker Hub; name.DefaultRegistry is where it
// answers.
const hubHost = "docker.io"

// parseReference reads [host/]repository[:tag][@digest]. A digest wins over a
// tag beside it.
func parseReference(ref string) (name.Reference, error) {
	if strings.Contains(ref, "://") {
		return nil, fmt.Errorf("parse reference %q: write it without a scheme", redactText(ref))
	}
	var (
		parsed name.Reference
		err    error
	)
	if strings.Contains(ref, "@") {
		parsed, err = name.NewDigest(ref)
	} else {
		parsed, err = name.NewTag(ref)
	}
	if err != nil {
		return nil, fmt.Errorf("parse reference %q: %w", ref, err)
	}
	return parsed, nil
}

// displayHost is the host as people write it.
func displayHost(reg name.Registry) string {
	if reg.RegistryStr() == name.DefaultRegistry {
		return hubHost
	}
	return reg.RegistryStr()
}

// displayRepository is the repository with its host, as people write it.
func displayRepository(repo name.Repository) string {
	return displayHost(repo.Registry) + "/" + repo.RepositoryStr()
}

// displayReference is the whole reference, tag or digest included.
func displayReference(ref name.Reference) string {
	separator := ":"
	if _, ok := ref.(name.Digest); ok {
		separator = "@"
	}
	return displayRepository(ref.Context()) + separator + ref.Identifier()
}

// isLoopback says whether host, with or without a port, is this machine:
// localhost, 127.0.0.0/8 or ::1. Names are not looked up.
func isLoopback(host string) bool {
	addr, ok := address(host)
	return ok && addr.IsLoopback()
}

// isNear says whether host is this machine or a private address (RFC 1918, RFC
// 4193).
func isNear(host string) bool {
	addr, ok := address(host)
	return ok && (addr.IsLoopback() || addr.IsPrivate())
}

// address is the address that host, with or without a port, is; of names, only
// localhost has one.
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

// sameHost says whether u is on host (name[:port]), a missing port being that
// of u's scheme.
func sameHost(u *url.URL, host string) bool {
	return withPort(u.Host, u.Scheme) == withPort(host, u.Scheme)
}

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
