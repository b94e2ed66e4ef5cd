package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/internal/auth"
	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/google/go-containerregistry/pkg/authn"
)

// tokenTimeout is how long a token server may take.
const tokenTimeout = 60 * time.Second

// A session is the right to do some things in repositories of one host.
type session struct {
	*upstream
	repo  *repository
	paces paces
	login authn.AuthConfig // zero: no login is known

	auth *auth.Authoriser
}

// newSession returns the right to scopes in repo, whose registry is at up.
func newSession(up *upstream, repo *repository, scopes []string, paces paces) *session {
	s := &session{upstream: up, repo: repo, paces: paces, login: repo.login}
	s.auth = auth.New(auth.Options{
		Registry:  up.registry,
		Login:     authn.FromConfig(s.login),
		Scopes:    scopes,
		Covers:    s.covers,
		Carrier:   s.carrier(),
		UserAgent: userAgent,
		Timeout:   tokenTimeout,
		Now:       up.patience.Now,
	}, up.challenge)
	return s
}

// authorization returns the Authorization header for the next request, "" if the
// request needs no header.
func (s *session) authorization(ctx context.Context) (string, error) {
	header, err := s.auth.Header(ctx)
	return header, s.tokenError(err)
}

// covers reports whether a scope that a registry asks for is about the session's own
// repository.
func (s *session) covers(scope string) bool {
	return strings.HasPrefix(scope, "repository:"+s.repo.RepositoryStr()+":")
}

// carrier carries requests to the registry's host and to others.
func (s *session) carrier() http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		if s.Is(req.URL) {
			return s.home.RoundTrip(req)
		}
		return s.away.RoundTrip(req)
	})
}

// tokenError makes an answer for the client from a token server's error.
func (s *session) tokenError(err error) error {
	token, ok := errors.AsType[*auth.TokenError](err)
	switch {
	case !ok:
		return err
	case token.Status >= 500, token.Status == http.StatusTooManyRequests:
		return &refusal{status: token.Status, code: "UNKNOWN", message: "the registry's token server has a problem of its own"}
	case token.Status != 0:
		return s.denied()
	}
	return fmt.Errorf("get a token: %w", s.cleanse(token.Err, ""))
}

// denied takes the place of a 401, since the client has no credentials to correct.
func (s *session) denied() *refusal {
	message := "the registry does not accept the proxy's credentials for this repository"
	if s.login == (authn.AuthConfig{}) {
		message = "the registry wants credentials and the proxy has none for this repository"
	}
	return &refusal{status: http.StatusForbidden, code: "DENIED", message: message}
}

// minSecret is the length from which on a secret is looked for in texts, bytes.
const minSecret = 6

// conceal removes from a text the secrets in header and in the login, since a registry
// may repeat them.
func (s *session) conceal(text, header string) string {
	secrets := append(auth.Secrets(header), s.login.Password, s.login.Auth, s.login.IdentityToken, s.login.RegistryToken)
	return words.Conceal(text, slices.DeleteFunc(secrets, func(one string) bool { return len(one) < minSecret })...)
}

// cleanse removes URLs and secrets from an error.
func (s *session) cleanse(err error, header string) error {
	err = words.Bare(err)
	if clean := s.conceal(err.Error(), header); clean != err.Error() {
		return errors.New(clean)
	}
	return err
}
