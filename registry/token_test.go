package registry_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/logins"
	"golang.org/x/crypto/bcrypt"
)

// issuer is a server of tokens as the Docker Registry v2 token specification has
// them: JSON Web Tokens, signed by a key whose certificate the registry knows.
type issuer struct {
	signer *authority
	life   time.Duration // of the next token

	mu     sync.Mutex
	tokens []string
	scopes []string
}

func (s *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u, p, ok := r.BasicAuth()
	if r.Method == http.MethodPost { // OAuth2, with an identity token
		u, p, ok = user, strings.TrimPrefix(r.FormValue("refresh_token"), "refresh-"), true
	}
	if !ok || u != user || p != password {
		registrytest.Say(401, "UNAUTHORIZED "+p)(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var access []map[string]any
	scopes := r.URL.Query()["scope"]
	if r.Method == http.MethodPost {
		scopes = strings.Fields(r.FormValue("scope"))
	}
	for _, scope := range scopes {
		parts := strings.SplitN(scope, ":", 3)
		access = append(access, map[string]any{"type": parts[0], "name": parts[1], "actions": strings.Split(parts[2], ",")})
	}
	s.scopes = append(s.scopes, scopes...)
	now := time.Now()
	token, err := s.sign(map[string]any{
		"iss": "test issuer", "sub": u, "aud": "test registry", "jti": rand.Text(), "access": access,
		"iat": now.Add(-time.Hour).Unix(), "nbf": now.Add(-time.Hour).Unix(), "exp": now.Add(s.life).Unix(),
	})
	if err != nil {
		registrytest.Say(500, err.Error())(w, r)
		return
	}
	s.tokens = append(s.tokens, token)
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
}

func (s *issuer) sign(claims map[string]any) (string, error) {
	header, err := json.Marshal(map[string]any{
		"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.signer.cert.Raw)},
	})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, s.signer.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	a.FillBytes(signature[:32])
	b.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func (s *issuer) next(life time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life = life
}

func (s *issuer) last() (token string, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tokens[len(s.tokens)-1], len(s.tokens)
}

// serveTokens starts docker-registry, which takes the tokens of an issuer only.
func serveTokens(t *testing.T) (*issuer, string) {
	t.Helper()
	signer, certificate := (*authority)(nil).issue(t)
	s := &issuer{signer: signer, life: time.Hour}
	realm := "http://" + registrytest.Serve(t, s) + "/token"
	bundle := filepath.Join(t.TempDir(), "bundle.pem")
	if err := os.WriteFile(bundle, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	return s, serveDistributionWith(t, fmt.Sprintf(
		"auth: {token: {realm: '%s', service: test registry, issuer: test issuer, rootcertbundle: '%s'}}\n", realm, bundle))
}

// allowed asks the registry itself whether a token still lets in.
func allowed(t *testing.T, host, repo, token string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/"+repo+"/tags/list", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode != http.StatusUnauthorized
}

// TestTokens pushes to and pulls from a registry with tokens that end in between.
func TestTokens(t *testing.T) {
	t.Parallel()
	s, host := serveTokens(t)
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 9<<20)
	var mu sync.Mutex
	var said []string
	c := registrytest.NewClient(t, func(o *registry.Options) {
		o.Keychain = login{user, password}
		o.Notice = func(text string) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, text)
		}
	})
	f.Push(t.Context(), t, c, host+"/app:1")
	f.Check(t.Context(), t, c, host+"/app:1")

	// The registry allows for a minute's difference between clocks: such a token
	// is good for a second or two, though it is said to be for five minutes.
	s.next(-58 * time.Second)
	p, err := c.Push(t.Context(), host+"/late:1")
	if err != nil {
		t.Fatal(err)
	}
	ended := func(repo string) {
		t.Helper()
		token, _ := s.last()
		for allowed(t, host, repo, token) {
			time.Sleep(50 * time.Millisecond)
		}
		s.next(time.Hour)
	}
	ended("late")
	_, before := s.last()
	for i, l := range f.Descs {
		if err := p.Blob(t.Context(), l.Descriptor, "", registrytest.Opener(f.Layers[i])); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Blob(t.Context(), registrytest.Descriptor("", f.Config), "", registrytest.Opener(f.Config)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Manifest(t.Context(), f.MediaType, f.Manifest); err != nil {
		t.Fatal(err)
	}
	if _, after := s.last(); after == before {
		t.Error("no token was renewed")
	}
	s.next(-58 * time.Second)
	im, err := c.Resolve(t.Context(), host+"/late:1", registrytest.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	ended("late")
	for _, l := range im.Layers {
		if _, err := registrytest.ReadBlob(t.Context(), im, l.Descriptor); err != nil {
			t.Error(err)
		}
	}

	// An identity token in place of a password.
	a, err := logins.Parse([]byte(`{"`+host+`":{"identitytoken":"refresh-`+password+`"}}`), "x")
	if err != nil {
		t.Fatal(err)
	}
	f.Check(t.Context(), t, registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = a }), host+"/late:1")
	// A token of the registry itself.
	token, _ := s.last()
	a, err = logins.Parse([]byte(`{"`+host+`":{"registrytoken":"`+token+`"}}`), "x")
	if err != nil {
		t.Fatal(err)
	}
	f.Check(t.Context(), t, registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = a }), host+"/late:1")

	// No clock helps with a token that never was good.
	s.next(-2 * time.Hour)
	_, err = c.Push(t.Context(), host+"/other:1")
	registrytest.CheckError(t, err, host, registry.ErrDenied, host+"/other")
	_, wrong := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, "wrong-passw0rd"} }).Push(t.Context(), host+"/x:1")
	registrytest.CheckError(t, wrong, host, registry.ErrDenied, "docker login "+host)
	_, none := registrytest.NewClient(t, nil).Push(t.Context(), host+"/x:1")
	registrytest.CheckError(t, none, host, registry.ErrDenied, "docker login "+host)

	text := fmt.Sprintf("%v %+v %v %v %s", err, err, wrong, none, said)
	for _, secret := range append(s.tokens, password, "wrong-passw0rd") {
		if strings.Contains(text, secret) {
			t.Errorf("%s… is shown in %s", secret[:5], text)
		}
	}
}

// TestHtpasswd uses Basic authentication as docker-registry has it.
func TestHtpasswd(t *testing.T) {
	t.Parallel()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(user+":"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := serveDistributionWith(t, "auth: {htpasswd: {realm: 'test \"realm\"', path: '"+file+"'}}\n")
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 9<<20)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, password} })
	f.Push(t.Context(), t, c, host+"/app:1")
	f.Check(t.Context(), t, c, host+"/app:1")
	_, err = registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, "wrong-passw0rd"} }).Push(t.Context(), host+"/app:1")
	registrytest.CheckError(t, err, host, registry.ErrDenied, "does not accept the credentials")
	if strings.Contains(err.Error(), "wrong-passw0rd") {
		t.Error("the error holds the password")
	}
	_, err = registrytest.NewClient(t, nil).Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
	registrytest.CheckError(t, err, host, registry.ErrDenied, "none are known")
}
