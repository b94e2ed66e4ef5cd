// Package auth answers the challenges of registries: by a login, or by the token that a
// token server gives for one. The client and the proxy use it.
//
// A login goes to the registry's own host and to the token server that the registry
// names, and to no other host, whatever these redirect to. Errors hold no secret.
//
// Specifications: Docker Registry v2 token and OAuth2 authentication; RFC 9110 section
// 11.6.1.
package auth

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/semaphore"
)

// An Authoriser knows the Authorization header to send for one purpose. It is safe for
// concurrent use. A caller that waits for another caller's request to the token server
// stops waiting when its own context ends.
type Authoriser struct {
	options Options

	gate      *semaphore.Weighted // guards what follows, across requests
	scopes    []string
	challenge *transport.Challenge // nil: everybody is let in
	header    string               // the Authorization in use; may be ""
	expires   time.Time            // of header; zero is never
}

// New returns an authoriser for a challenge, which may be nil. It makes no request yet.
func New(o Options, challenge *transport.Challenge) *Authoriser {
	return &Authoriser{options: o, gate: semaphore.NewWeighted(1), scopes: o.Scopes, challenge: challenge}
}

// Header returns the Authorization header for the next request. It is "" if the request
// needs no header, or no login is known.
func (a *Authoriser) Header(ctx context.Context) (string, error) {
	if err := a.gate.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer a.gate.Release(1)
	if a.challenge == nil || a.header != "" && (a.expires.IsZero() || a.options.Now().Before(a.expires)) {
		return a.header, nil
	}
	err := a.authorise(ctx)
	return a.header, err
}

// Renew answers the challenge to a request that was sent with the header used. It
// returns used if there is no other header to try.
func (a *Authoriser) Renew(ctx context.Context, used string, challenge *transport.Challenge) (string, error) {
	if challenge == nil {
		return used, nil
	}
	if err := a.gate.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer a.gate.Release(1)
	if a.header != used && a.header != "" {
		return a.header, nil // another caller was faster
	}
	a.challenge = challenge
	if scope := challenge.Parameters["scope"]; scope != "" && !slices.Contains(a.scopes, scope) && a.options.Covers(scope) {
		// Some token servers look at the first scope only.
		a.scopes = append([]string{scope}, a.scopes...)
	}
	err := a.authorise(ctx)
	return a.header, err
}

// authorise answers the challenge. The gate is held.
func (a *Authoriser) authorise(ctx context.Context) error {
	login, err := authn.Authorization(ctx, a.options.Login)
	if err != nil {
		return &LoginError{err}
	}
	a.header, a.expires = "", time.Time{}
	switch scheme := strings.ToLower(a.challenge.Scheme); {
	case login.RegistryToken != "":
		a.header = "Bearer " + login.RegistryToken
	case scheme == "basic" && login.Username != "":
		a.header = "Basic " + base64.StdEncoding.EncodeToString([]byte(login.Username+":"+login.Password))
	case scheme == "basic" && login.Auth != "":
		a.header = "Basic " + login.Auth
	case scheme == "bearer":
		a.header, a.expires, err = a.options.fetchToken(ctx, login, a.scopes, a.challenge)
		return err
	}
	return nil
}

// Secrets returns the parts of an Authorization header that must not be shown.
func Secrets(header string) []string {
	_, secret, _ := strings.Cut(header, " ")
	plain, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		return []string{secret}
	}
	_, password, _ := strings.Cut(string(plain), ":")
	return []string{secret, password}
}
