package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/internal/host"
	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// A LoginError says that the login can't be read.
type LoginError struct{ cause error }

func (e *LoginError) Error() string { return words.Redact(e.cause.Error()) }

// A TokenError says that a token server gives no token.
type TokenError struct {
	Status  int      // HTTP status; 0 when no answer came or the answer was no use
	Codes   []string // the server's own error codes
	Message string   // the server's own words, without secrets
	Err     error    // the cause when it isn't Status
}

func (e *TokenError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("the token server answers %d", e.Status)
}

// Unwrap returns the cause.
func (e *TokenError) Unwrap() error { return e.Err }

// defaultLife is the life of a token whose answer doesn't say how long it lives (Docker
// Registry v2 token authentication).
const defaultLife = 60 * time.Second

// fetchToken gets a token for scopes from the server that the challenge names. It
// returns the Authorization header with the token, and when the token expires.
func (o *Options) fetchToken(
	ctx context.Context, login *authn.AuthConfig, scopes []string, challenge *transport.Challenge,
) (header string, expires time.Time, err error) {
	realm, err := url.Parse(challenge.Parameters["realm"])
	if err != nil || realm.Host == "" {
		return "", time.Time{}, &TokenError{Err: errors.New("the registry's challenge names no token server")}
	}
	method := http.MethodGet
	if login.IdentityToken != "" {
		method = http.MethodPost
	}
	asking, cancel := context.WithTimeoutCause(ctx, o.Timeout, &patience.StallError{Request: method + " to " + realm.Host, After: o.Timeout})
	defer cancel()
	begin := o.Now()
	carrier := &tokenCarrier{realm: realm, userAgent: o.UserAgent, inner: o.Carrier}
	token, err := transport.Exchange(asking, realmKeeper(o.Registry, realm), o.Login, carrier, scopes, challenge)
	if err != nil {
		if stall := patience.Stalled(asking); stall != nil && ctx.Err() == nil {
			err = stall
		}
		return "", time.Time{}, tokenError(err, login)
	}
	value := token.Token
	if token.AccessToken != "" {
		value = token.AccessToken
	}
	life := defaultLife
	if token.ExpiresIn > 0 {
		life = time.Duration(token.ExpiresIn) * time.Second
	}
	// Renew it ahead of time, since an upload can't be restarted.
	return "Bearer " + value, begin.Add(life - min(life/4, 30*time.Second)), nil
}

// realmKeeper returns the registry to compare the token server at realm with. Exchange
// refuses token servers at private addresses unless they are the registry itself, so
// that no distant registry can point to this machine's neighbours. A registry at a
// private address is a neighbour itself, and may name one.
func realmKeeper(reg name.Registry, realm *url.URL) name.Registry {
	if !host.Near(reg.RegistryStr()) || !host.Near(realm.Host) {
		return reg
	}
	if near, err := name.NewRegistry(realm.Host); err == nil {
		return near
	}
	return reg
}

// tokenError converts an error of Exchange.
func tokenError(err error, login *authn.AuthConfig) *TokenError {
	var (
		answer *transport.Error
		syntax *json.SyntaxError
	)
	switch {
	case errors.As(err, &answer):
		e := &TokenError{Status: answer.StatusCode}
		for _, one := range answer.Errors {
			e.Codes = append(e.Codes, words.Code(string(one.Code)))
			e.Message = words.Line(one.Message)
		}
		e.Message = words.Conceal(e.Message, login.Password, login.IdentityToken, login.Auth)
		return e
	case errors.As(err, &syntax):
		return &TokenError{Err: fmt.Errorf("the token server's answer is not JSON: %w", syntax)}
	case strings.HasPrefix(err.Error(), "no token in bearer response"):
		// The text goes on with the whole answer.
		return &TokenError{Err: errors.New("the token server's answer holds no token")}
	}
	return &TokenError{Err: words.Bare(err)}
}

// tokenCarrier carries requests to a token server, whose credentials its caller adds.
type tokenCarrier struct {
	realm     *url.URL // of the token server
	userAgent string
	inner     http.RoundTripper
}

// maxToken bounds what is read of a token server's answer, bytes.
const maxToken = 1 << 20

// RoundTrip implements http.RoundTripper. Hosts that a redirect leads to get no
// credentials, and no request with credentials in its body.
func (t *tokenCarrier) RoundTrip(req *http.Request) (*http.Response, error) {
	away := req.URL.Host != t.realm.Host || req.URL.Scheme != t.realm.Scheme
	if away && req.Method != http.MethodGet {
		return nil, errors.New("the token server redirects a login to another host")
	}
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", t.userAgent)
	if away {
		req.Header.Del("Authorization")
	}
	resp, err := t.inner.RoundTrip(req)
	if err == nil {
		resp.Body = &shortened{io.LimitReader(resp.Body, maxToken), resp.Body}
	}
	return resp, err
}

// shortened is the beginning of a body.
type shortened struct {
	io.Reader
	io.Closer
}
