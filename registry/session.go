package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"

	"github.com/bobbuild/bob/registry/conf"
	"github.com/bobbuild/bob/registry/internal/auth"
	"github.com/bobbuild/bob/registry/internal/host"
	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// What a session may do in its repository.
const (
	actionsPull = "pull"
	actionsPush = "pull,push"
)

// session is the authorised use of one repository.
type session struct {
	client    *Client
	endpoint  *endpoint
	ref       name.Reference
	named     name.Repository // what references call it; at a mirror it isn't ref's
	login     authn.Authenticator
	anonymous bool
	auth      *auth.Authoriser
}

// session reaches the registry of ref and gets the right to do actions ("pull",
// "pull,push") in its repository.
func (c *Client) session(ctx context.Context, at conf.Site, actions string) (*session, error) {
	ref := at.Ref
	ep, err := c.endpoints.find(ctx, &c.retries, ref.Context().Registry, c.insecure || at.Insecure)
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			e.Repository = reference.Repository(ref.Context())
		}
		return nil, err
	}
	s := &session{
		client:   c,
		endpoint: ep,
		ref:      ref,
		named:    ref.Context(),
	}
	keychain := c.keychain
	if actions != actionsPull {
		keychain = c.pushKeychain
	}
	s.login, err = authn.Resolve(ctx, keychain, ref.Context())
	if err != nil {
		return nil, s.fail(opReadLogin, "", errors.New(words.Redact(err.Error())))
	}
	s.anonymous = s.login == authn.Anonymous
	s.tellCredential()
	s.auth = s.authoriser(ref.Scope(actions))
	err = c.run(ctx, opAuthenticate+" "+reference.Repository(ref.Context()), func() error {
		_, err := s.authorization(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// authoriser returns an authoriser for scopes at the session's host.
func (s *session) authoriser(scopes ...string) *auth.Authoriser {
	return auth.New(auth.Options{
		Registry:  s.ref.Context().Registry,
		Login:     s.login,
		Scopes:    scopes,
		Covers:    func(string) bool { return true },
		Carrier:   s.endpoint.Carrier(),
		UserAgent: s.client.userAgent,
		Timeout:   s.client.idle,
		Now:       s.client.patience.Now,
	}, s.endpoint.challenge)
}

// tellCredential says where the credential comes from.
func (s *session) tellCredential() {
	at, origin := reference.Host(s.ref.Context().Registry), ""
	if found, ok := s.login.(interface{ Origin() string }); ok {
		origin = found.Origin()
	} else if !s.anonymous {
		origin = "the keychain"
	}
	if s.client.news.first("credential\x00" + at + "\x00" + origin) {
		s.client.credential(at, origin)
	}
}

// fail makes an error of the cause why op failed, on the blob if digest isn't "".
func (s *session) fail(op, digest string, cause error) *Error {
	var (
		source *wire.SourceError
		inner  *Error
	)
	again := errors.As(cause, &inner) && inner.again
	return &Error{
		Op:         op,
		Host:       reference.Host(s.ref.Context().Registry),
		Repository: reference.Repository(s.ref.Context()),
		Reference:  reference.String(s.ref),
		Digest:     digest,
		Err:        cause,
		anonymous:  s.anonymous,
		permanent:  errors.As(cause, &source) && !again,
		again:      again,
	}
}

// url returns the URL of a path below the repository, such as "blobs/uploads/".
func (s *session) url(path string) *url.URL {
	return s.endpoint.URL("/v2/" + s.ref.Context().RepositoryStr() + "/" + path)
}

// call is one request about a repository.
type call struct {
	wire.Call

	op     string
	digest string // of the blob in question, for errors
	accept []int  // statuses that mean success
	single bool   // the body can be opened once only
}

// do makes the request once, with credentials, and once more with fresh ones if
// the registry asks for them. Every status that isn't in c.accept is an error.
// The caller closes the response's body.
func (s *session) do(ctx context.Context, c *call) (*http.Response, error) {
	header, err := s.authorization(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := s.attempt(ctx, c, header)
	var e *Error
	if err == nil || c.single || !errors.As(err, &e) || e.Status != http.StatusUnauthorized {
		return resp, err
	}
	fresh, renewErr := s.auth.Renew(ctx, header, e.challenge)
	if renewErr != nil {
		return nil, s.unauthorised(renewErr)
	}
	if fresh == header {
		return nil, err
	}
	return s.attempt(ctx, c, fresh)
}

// perform makes the request as do does and hands the response, which it closes,
// to use.
func (s *session) perform(ctx context.Context, c *call, use func(*http.Response) error) error {
	resp, err := s.do(ctx, c) //nolint:bodyclose // wire.Drain does
	if err != nil {
		return err
	}
	defer wire.Drain(resp.Body)
	return use(resp)
}

func (s *session) attempt(ctx context.Context, c *call, header string) (*http.Response, error) {
	resp, err := s.endpoint.Exchange(ctx, &c.Call, header)
	if err != nil {
		return nil, s.fail(c.op, c.digest, err)
	}
	if slices.Contains(c.accept, resp.StatusCode) {
		return resp, nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // the status says enough
	wire.Drain(resp.Body)
	e := s.fail(c.op, c.digest, nil)
	e.fill(resp, body)
	e.Message = words.Conceal(e.Message, auth.Secrets(header)...)
	if host.Same(resp.Request.URL, s.endpoint.Address.Host) {
		e.challenge = auth.Challenge(resp.Header, s.endpoint.Scheme == "http")
	}
	return nil, e
}

// authorization returns the Authorization header for the next request, "" if the
// request needs no header.
func (s *session) authorization(ctx context.Context) (string, error) {
	header, err := s.auth.Header(ctx)
	if err != nil {
		return "", s.unauthorised(err)
	}
	return header, nil
}

// unauthorised makes an error of an authoriser's.
func (s *session) unauthorised(err error) *Error {
	if login, ok := errors.AsType[*auth.LoginError](err); ok {
		return s.fail(opReadLogin, "", login)
	}
	token, ok := errors.AsType[*auth.TokenError](err)
	if !ok {
		return s.fail(opAuthenticate, "", err)
	}
	e := s.fail(opAuthenticate, "", token.Err)
	e.Reference, e.Status, e.Message = "", token.Status, token.Message
	for _, code := range token.Codes {
		e.addCode(code)
	}
	return e
}

// with returns another session for the same repository, which has one more scope.
func (s *session) with(scope string) *session {
	other := *s
	other.auth = s.authoriser(s.ref.Scope(actionsPush), scope)
	return &other
}
