package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// defaultTokenLife is that of a token that doesn't say (Docker Registry v2
// token authentication).
const defaultTokenLife = 60 * time.Second

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
	named     name.Repository // what references call it; another than ref's at a mirror
	auth      authn.Authenticator
	anonymous bool

	gate      gate // guards what follows
	scopes    []string
	challenge *transport.Challenge
	header    string    // the Authorization in use, "" = none
	expires   time.Time // of header; zero = never
}

// session reaches the registry of ref and gets the right to do actions ("pull",
// "pull,push") in its repository.
func (c *Client) session(ctx context.Context, at site, actions string) (*session, error) {
	ref := at.ref
	ep, err := c.endpoint(ctx, ref.Context().Registry, c.insecure || at.insecure)
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			e.Repository = displayRepository(ref.Context())
		}
		return nil, err
	}
	s := &session{
		client:    c,
		endpoint:  ep,
		ref:       ref,
		named:     ref.Context(),
		gate:      newGate(),
		scopes:    []string{ref.Scope(actions)},
		challenge: ep.challenge,
	}
	keychain := c.keychain
	if actions != actionsPull {
		keychain = c.pushKeychain
	}
	s.auth, err = authn.Resolve(ctx, keychain, ref.Context())
	if err != nil {
		return nil, s.fail("read the credentials for", "", errors.New(redactText(err.Error())))
	}
	s.anonymous = s.auth == authn.Anonymous
	s.tellCredential()
	err = c.run(ctx, opAuthenticate+" "+displayRepository(ref.Context()), func() error {
		_, err := s.authorization(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

const opAuthenticate = "authenticate for"

// tellCredential says where the credential comes from.
func (s *session) tellCredential() {
	host, origin := displayHost(s.ref.Context().Registry), ""
	switch found := s.auth.(type) {
	case *credential:
		origin = found.origin
	default:
		if !s.anonymous {
			origin = "the keychain"
		}
	}
	if s.client.first("credential\x00" + host + "\x00" + origin) {
		s.client.credential(host, origin)
	}
}

// fail makes an error of a cause.
func (s *session) fail(op, digest string, cause error) *Error {
	var (
		source *sourceError
		inner  *Error
	)
	again := errors.As(cause, &inner) && inner.again
	return &Error{
		Op:         op,
		Host:       displayHost(s.ref.Context().Registry),
		Repository: displayRepository(s.ref.Context()),
		Reference:  displayReference(s.ref),
		Digest:     digest,
		Err:        cause,
		anonymous:  s.anonymous,
		permanent:  errors.As(cause, &source) && !again,
		again:      again,
	}
}

// url returns the URL of a path below the repository, such as "blobs/uploads/".
func (s *session) url(path string) *url.URL {
	return s.endpoint.url("/v2/" + s.ref.Context().RepositoryStr() + "/" + path)
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
	fresh, renewErr := s.renew(ctx, header, e.challenge)
	if renewErr != nil {
		return nil, renewErr
	}
	if fresh == header {
		return nil, err
	}
	return s.attempt(ctx, c, fresh)
}

// perform makes the request as do does and hands the response, which it closes,
// to use.
func (s *session) perform(ctx context.Context, c *call, use func(*http.Response) error) error {
	resp, err := s.do(ctx, c) //nolint:bodyclose // closeBody does
	if err != nil {
		return err
	}
	defer closeBody(resp.Body)
	return use(resp)
}

func (s *session) attempt(ctx context.Context, c *call, header string) (*http.Response, error) {
	resp, err := s.endpoint.exchange(ctx, c, header)
	if err != nil {
		return nil, s.fail(c.op, c.digest, err)
	}
	if slices.Contains(c.accept, resp.StatusCode) {
		return resp, nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // the status says enough
	closeBody(resp.Body)
	e := s.fail(c.op, c.digest, nil)
	e.fill(resp, body)
	e.Message = conceal(e.Message, headerSecrets(header)...)
	if sameHost(resp.Request.URL, s.endpoint.registry.RegistryStr()) {
		e.challenge = pickChallenge(resp.Header, s.endpoint.scheme == "http")
	}
	return nil, e
}

// conceal takes secrets out of what a registry says: it may say what it got.
func conceal(text string, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	return text
}

// headerSecrets returns what of an Authorization header must not be shown.
func headerSecrets(header string) []string {
	_, secret, _ := strings.Cut(header, " ")
	plain, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		return []string{secret}
	}
	_, password, _ := strings.Cut(string(plain), ":")
	return []string{secret, password}
}

// authorization returns the Authorization header for the next request, "" when
// none is needed.
func (s *session) authorization(ctx context.Context) (string, error) {
	if err := s.gate.lock(ctx); err != nil {
		return "", s.fail(opAuthenticate, "", err)
	}
	defer s.gate.unlock()
	if s.challenge == nil {
		return "", nil
	}
	if s.header != "" && (s.expires.IsZero() || time.Now().Before(s.expires)) {
		return s.header, nil
	}
	return s.header, s.authorize(ctx)
}

// renew answers a challenge to a request that was sent with header used. It
// returns used when there is no other answer.
func (s *session) renew(ctx context.Context, used string, challenge *transport.Challenge) (string, error) {
	if challenge == nil {
		return used, nil
	}
	if err := s.gate.lock(ctx); err != nil {
		return "", s.fail(opAuthenticate, "", err)
	}
	defer s.gate.unlock()
	if s.header != used && s.header != "" {
		return s.header, nil // somebody else was faster, and got one
	}
	s.challenge = challenge
	if scope := challenge.Parameters["scope"]; scope != "" && !slices.Contains(s.scopes, scope) {
		// Some token servers look at the first scope only.
		s.scopes = append([]string{scope}, s.scopes...)
	}
	err := s.authorize(ctx)
	return s.header, err
}

// with returns a session of its own for the same repository and one more scope.
func (s *session) with(scope string) *session {
	return &session{
		client:    s.client,
		endpoint:  s.endpoint,
		ref:       s.ref,
		named:     s.named,
		auth:      s.auth,
		anonymous: s.anonymous,
		gate:      newGate(),
		scopes:    []string{s.ref.Scope(actionsPush), scope},
		challenge: s.endpoint.challenge,
	}
}

// authorize answers the challenge; the gate is held.
func (s *session) authorize(ctx context.Context) error {
	config, err := authn.Authorization(ctx, s.auth)
	if err != nil {
		return s.fail("read the credentials for", "", errors.New(redactText(err.Error())))
	}
	s.header, s.expires = "", time.Time{}
	switch scheme := strings.ToLower(s.challenge.Scheme); {
	case config.RegistryToken != "":
		s.header = "Bearer " + config.RegistryToken
	case scheme == "basic" && config.Username != "":
		s.header = "Basic " + base64.StdEncoding.EncodeToString([]byte(config.Username+":"+config.Password))
	case scheme == "basic" && config.Auth != "":
		s.header = "Basic " + config.Auth
	case scheme == "bearer":
		return s.fetchToken(ctx, config)
	}
	return nil
}

// fetchToken gets a token from the server that the challenge names.
func (s *session) fetchToken(ctx context.Context, config *authn.AuthConfig) error {
	realm, err := url.Parse(s.challenge.Parameters["realm"])
	if err != nil {
		return s.fail(opAuthenticate, "", errors.New("the registry's challenge names no token server"))
	}
	method, idle := http.MethodGet, s.client.idle
	if config.IdentityToken != "" {
		method = http.MethodPost
	}
	tokenCtx, cancel := context.WithTimeoutCause(ctx, idle, &patience.StallError{Request: method + " to " + realm.Host, After: idle})
	defer cancel()
	carrier := tokenTransport{s.endpoint.transport, realm}
	token, err := transport.Exchange(tokenCtx, s.realmKeeper(), s.auth, carrier, s.scopes, s.challenge)
	if err != nil {
		if stall := patience.Stalled(tokenCtx); stall != nil && ctx.Err() == nil {
			err = stall
		}
		e := s.tokenError(err)
		e.Message = conceal(e.Message, config.Password, config.IdentityToken, config.Auth)
		return e
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
	s.expires = time.Now().Add(life - min(life/4, 30*time.Second))
	return nil
}

// realmKeeper is the registry that the token server is held against. Exchange
// refuses token servers at private addresses unless they are the registry itself,
// lest a registry anywhere points to this machine's neighbours. One that is at such
// an address is a neighbour already, and may.
func (s *session) realmKeeper() name.Registry {
	reg := s.ref.Context().Registry
	realm, err := url.Parse(s.challenge.Parameters["realm"])
	if err != nil || !isNear(reg.RegistryStr()) || !isNear(realm.Host) {
		return reg
	}
	if near, err := name.NewRegistry(realm.Host); err == nil {
		return near
	}
	return reg
}

// tokenError makes an error of what a token server answered.
func (s *session) tokenError(err error) *Error {
	e := s.fail(opAuthenticate, "", nil)
	e.Reference = ""
	var (
		answer *transport.Error
		syntax *json.SyntaxError
	)
	switch {
	case errors.As(err, &answer):
		e.Status = answer.StatusCode
		for _, one := range answer.Errors {
			e.addCode(string(one.Code))
			e.Message = words(one.Message)
		}
		return e
	case errors.As(err, &syntax):
		e.Err = fmt.Errorf("the token server's answer is not JSON: %w", syntax)
	case strings.HasPrefix(err.Error(), "no token in bearer response"):
		// The text goes on with the whole answer.
		e.Err = errors.New("the token server's answer holds no token")
	default:
		e.Err = bareCause(err)
	}
	return e
}
