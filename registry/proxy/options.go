package proxy

import (
	"crypto/x509"
	"log/slog"

	"github.com/bobbuild/bob/registry/patience"
)

const userAgent = "bob-proxy"

// Options say whom a [Proxy] works for.
type Options struct {
	// Base and Target are the references behind the aliases "base" and
	// "target": [host/]repository[:tag][@digest], a digest winning over a tag
	// beside it, without either ":latest". "" leaves an alias unknown.
	Base, Target string
	// Auth holds the logins for Base and Target.
	Auth Credentials
	// AdditionalAuth holds the logins for mirror requests, and those for
	// Base and Target that Auth lacks.
	AdditionalAuth Credentials
	// Insecure accepts any certificate, and plain HTTP from registries that
	// don't answer to https. Loopback hosts are always treated so.
	Insecure bool
	// Roots are the certificate authorities that are trusted; nil is the
	// machine's.
	Roots *x509.CertPool
	// Patience says for how long requests that can be repeated are retried while a
	// registry can't be reached. Requests to hosts of mirror requests aren't retried.
	Patience patience.Policy
	// Log gets a record of each request, without credentials or queries.
	// nil discards them.
	Log *slog.Logger
}
