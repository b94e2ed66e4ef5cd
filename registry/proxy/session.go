package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/internal/auth"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	tokenTimeout = 60 * time.Second
	maxSessions  = 1024
)

// A session is the right to do some things in repositories of one host.
type session struct {
	*upstream
	repo  *repository
	paces paces
	login authn.AuthConfig // zero: none is known

	auth *auth.Authoriser
}

// session returns the right to do actions in repo and, for a mount, to pull from
// another repository of the same host.
func (p *Proxy) session(ctx context.Context, repo *repository, actions string, from *repository) (*session, error) {
	up, err := p.hosts.upstream(ctx, repo.Registry, repo.guarded)
	if err != nil {
		return nil, err
	}
	scopes := []string{repo.Scope(actions)}
	if from != nil {
		scopes = append(scopes, from.Scope(transport.PullScope))
	}
	key := strings.Join(append([]string{repo.alias, repo.Name()}, scopes...), " ")
	return p.sessions.getOr(key, func() *session {
		s := &session{upstream: up, repo: repo, paces: p.paces, login: repo.login}
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
	}), nil
}

// authorization returns the Authorization header for the next request, "" when none is
// needed.
func (s *session) authorization(ctx context.Context) (string, error) {
	header, err := s.auth.Header(ctx)
	return header, s.tokenError(err)
}

// covers says whether a scope that a registry asks for is about the session's
// own repository.
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

// tokenError makes an answer for the client of what a token server answered.
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

// denied is what becomes of a 401: the client has no credentials to mend.
func (s *session) denied() *refusal {
	message := "the registry does not accept the proxy's credentials for this repository"
	if s.login == (authn.AuthConfig{}) {
		message = "the registry wants credentials and the proxy has none for this repository"
	}
	return &refusal{status: http.StatusForbidden, code: "DENIED", message: message}
}
