package proxy

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/semaphore"
)

const (
	// defaultTokenLife is that of a token that doesn't say (Docker Registry v2
	// token authentication).
	defaultTokenLife = 60 * time.Second
	tokenTimeout     = 60 * time.Second
	maxSessions      = 1024
)

// A session is the right to do some things in repositories of one host.
type session struct {
	*upstream
	repo  *repository
	paces paces
	login authn.AuthConfig // zero: none is known

	gate      *semaphore.Weighted // guards what follows, across network requests
	scopes    []string
	challenge *transport.Challenge
	header    string    // the Authorization in use, "" = none
	expires   time.Time // of header; zero = never
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
		return &session{
			upstream:  up,
			repo:      repo,
			paces:     p.paces,
			login:     repo.login,
			gate:      semaphore.NewWeighted(1),
			scopes:    scopes,
			challenge: up.challenge,
		}
	}), nil
}

// authorization returns the Authorization header for the next request, "" when
// none is needed.
func (s *session) authorization(ctx context.Context) (string, error) {
	if err := s.gate.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer s.gate.Release(1)
	if s.challenge == nil || (s.header != "" && (s.expires.IsZero() || time.Now().Before(s.expires))) {
		return s.header, nil
	}
	err := s.authorize(ctx)
	return s.header, err
}

// renew answers a challenge to a request that was sent with header used. It
// returns used when there is no other answer.
func (s *session) renew(ctx context.Context, used string, challenge *transport.Challenge) (string, error) {
	if challenge == nil {
		return used, nil
	}
	if err := s.gate.Acquire(ctx, 1); err != nil {
		return "", err
	}
	defer s.gate.Release(1)
	if s.header != used && s.header != "" {
		return s.header, nil // somebody else was faster
	}
	s.challenge = challenge
	if scope := challenge.Parameters["scope"]; scope != "" && !slices.Contains(s.scopes, scope) && s.covers(scope) {
		// Some token servers look at the first scope only.
		s.scopes = append([]string{scope}, s.scopes...)
	}
	err := s.authorize(ctx)
	return s.header, err
}

// covers says whether a scope that a registry asks for is about the session's
// own repository.
func (s *session) covers(scope string) bool {
	return strings.HasPrefix(scope, "repository:"+s.repo.RepositoryStr()+":")
}

// authorize answers the challenge; the gate is held.
func (s *session) authorize(ctx context.Context) error {
	s.header, s.expires = "", time.Time{}
	switch scheme := strings.ToLower(s.challenge.Scheme); {
	case s.login.RegistryToken != "":
		s.header = "Bearer " + s.login.RegistryToken
	case scheme == "basic" && s.login.Username != "":
		s.header = "Basic " + base64.StdEncoding.EncodeToString([]byte(s.login.Username+":"+s.login.Password))
	case scheme == "bearer":
		return s.fetchToken(ctx)
	}
	return nil
}

// fetchToken gets a token from the server that the challenge names.
func (s *session) fetchToken(ctx context.Context) error {
	realm, err := url.Parse(s.challenge.Parameters["realm"])
	if err != nil {
		return errors.New("the registry's challenge names no token server")
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	begin := time.Now()
	token, err := transport.Exchange(ctx, s.registry, authn.FromConfig(s.login), s.tokenCarrier(realm), s.scopes, s.challenge)
	if err != nil {
		return s.tokenError(err)
	}
	value := token.Token
	if token.AccessToken != "" {
		value = token.AccessToken
	}
	life := defaultTokenLife
	if token.ExpiresIn > 0 {
		life = time.Duration(token.ExpiresIn) * time.Second
	}
	s.header = "Bearer " + value
	// Renewed ahead of time, since an upload can't be asked to start again.
	s.expires = begin.Add(life - min(life/4, 30*time.Second))
	return nil
}

// maxToken bounds what is read of a token server's answer, bytes.
const maxToken = 1 << 20

// shortened is the beginning of a body.
type shortened struct {
	io.Reader
	io.Closer
}

// tokenCarrier carries requests to the token server at realm. What a redirect
// leads to gets no credentials, and no request that holds them in its body.
func (s *session) tokenCarrier(realm *url.URL) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		away := req.URL.Host != realm.Host || req.URL.Scheme != realm.Scheme
		if away && req.Method != http.MethodGet {
			return nil, errors.New("the token server redirects a login to another host")
		}
		req = req.Clone(req.Context())
		req.Header.Set("User-Agent", userAgent)
		if away {
			req.Header.Del("Authorization")
		}
		carrier := s.away
		if s.isHome(req.URL) {
			carrier = s.home
		}
		resp, err := carrier.RoundTrip(req)
		if err == nil {
			resp.Body = &shortened{io.LimitReader(resp.Body, maxToken), resp.Body}
		}
		return resp, err
	})
}

// tokenError makes an answer for the client of what a token server answered.
func (s *session) tokenError(err error) error {
	var answer *transport.Error
	switch {
	case errors.As(err, &answer) && answer.StatusCode >= 500, errors.As(err, &answer) && answer.StatusCode == http.StatusTooManyRequests:
		return &refusal{status: answer.StatusCode, code: "UNKNOWN", message: "the registry's token server has a problem of its own"}
	case errors.As(err, &answer):
		return s.denied()
	case strings.HasPrefix(err.Error(), "no token in bearer response"):
		// The text goes on with the whole answer.
		return errors.New("the token server's answer holds no token")
	}
	return fmt.Errorf("get a token: %w", s.cleanse(err, s.header))
}

// denied is what becomes of a 401: the client has no credentials to mend.
func (s *session) denied() *refusal {
	message := "the registry does not accept the proxy's credentials for this repository"
	if s.login == (authn.AuthConfig{}) {
		message = "the registry wants credentials and the proxy has none for this repository"
	}
	return &refusal{status: http.StatusForbidden, code: "DENIED", message: message}
}
