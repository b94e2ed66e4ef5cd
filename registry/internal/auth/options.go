package auth

import (
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Options say who is authorised, at which registry, and for what.
type Options struct {
	// Registry is the host that sent the challenge.
	Registry name.Registry
	// Login is the login for it; authn.Anonymous is no login.
	Login authn.Authenticator
	// Scopes are what tokens are asked for, such as "repository:app:pull".
	Scopes []string
	// Covers says whether a scope that the registry asks for later may be asked for
	// too.
	Covers func(scope string) bool
	// Carrier carries the requests to the token server, and to the hosts that it
	// redirects to.
	Carrier http.RoundTripper
	// UserAgent is sent with each of them.
	UserAgent string
	// Timeout is how long a token server may take.
	Timeout time.Duration
	// Now returns the time, to see when tokens expire.
	Now func() time.Time
}
