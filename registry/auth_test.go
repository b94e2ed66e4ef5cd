package registry_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	embedded "github.com/bobbuild/bob/registry/serve"
	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	user     = "ann"
	password = "s3cr3t-passw0rd"
)

func basicOnly(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			// A hostile registry sends back what it got.
			registrytest.Say(401, "UNAUTHORIZED "+r.Header.Get("Authorization")+" "+p, "WWW-Authenticate", `Negotiate, Basic realm="x, y"`)(w, r)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

func TestBasic(t *testing.T) {
	t.Parallel()
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	host := registrytest.Serve(t, basicOnly(h))
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 2000)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, password} })
	f.Push(t.Context(), t, c, host+"/app:1")
	f.Check(t.Context(), t, c, host+"/app:1")

	_, err = registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
	registrytest.CheckError(t, err, host, registry.ErrDenied, "none are known", "docker login "+host)

	const wrong = "wrong-passw0rd"
	_, err = registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, wrong} }).Push(t.Context(), host+"/app:1")
	registrytest.CheckError(t, err, host, registry.ErrDenied, "does not accept the credentials")
	if strings.Contains(fmt.Sprintf("%v %+v", err, err), wrong) {
		t.Error("the error holds the password")
	}
}

// tokenServer guards a registry with tokens (Docker Registry v2 token
// authentication) that are good for some requests only.
type tokenServer struct {
	inner http.Handler
	uses  int  // of one token
	deny  bool // no token is ever accepted

	mu     sync.Mutex
	tokens map[string]int // uses left
	scopes []string       // asked for
	count  int            // tokens given
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if r.URL.Path == "/token" {
		defer s.mu.Unlock()
		u, p, ok := r.BasicAuth()
		if ok && (u != user || p != password) {
			registrytest.Say(401, "UNAUTHORIZED")(w, r)
			return
		}
		token := "token-" + rand.Text()
		s.tokens[token] = s.uses
		s.count++
		s.scopes = append(s.scopes, r.URL.Query()["scope"]...)
		_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
		return
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	left := s.tokens[token]
	s.tokens[token]--
	s.mu.Unlock()
	if left <= 0 || s.deny {
		registrytest.Say(401, "UNAUTHORIZED", "WWW-Authenticate",
			fmt.Sprintf(`Bearer realm="http://%s/token",service="test \"quoted\"",error="invalid_token"`, r.Host))(w, r)
		return
	}
	s.inner.ServeHTTP(w, r)
}

func newTokenServer(t *testing.T, uses int) (*tokenServer, string) {
	t.Helper()
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &tokenServer{inner: h, uses: uses, tokens: make(map[string]int)}
	return s, registrytest.Serve(t, s)
}

func TestBearer(t *testing.T) {
	t.Parallel()
	s, host := newTokenServer(t, 1<<20)
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 2000)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, password} })
	f.Push(t.Context(), t, c, host+"/app:1")
	f.Check(t.Context(), t, c, host+"/app:1")
	if s.count != 2 {
		t.Errorf("%d tokens for one push and one pull", s.count)
	}
	for _, want := range []string{"repository:app:pull,push", "repository:app:pull"} {
		if !slices.Contains(s.scopes, want) {
			t.Errorf("scopes %q lack %q", s.scopes, want)
		}
	}

	// A mount needs the right to read the other repository.
	p, err := c.Push(t.Context(), host+"/b:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Blob(t.Context(), f.Descs[0].Descriptor, host+"/app:1", mustNotOpen(t)); err != nil {
		t.Fatal(err)
	}

	_, err = registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, "wrong-one"} }).Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
	registrytest.CheckError(t, err, host, registry.ErrDenied, "authenticate for", "does not accept the credentials")
}

// TestBearerExpiry uses tokens that the registry forgets after a few requests,
// and tokens that end at once.
func TestBearerExpiry(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 1<<20, 1<<20, 1000)
	s, host := newTokenServer(t, 1)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, password} })
	if err := pushBlobs(t, c, f, host+"/app:1"); err != nil {
		t.Fatal(err)
	}
	f.Check(t.Context(), t, c, host+"/app:1")
	if s.count < 10 {
		t.Errorf("only %d tokens", s.count)
	}
}

// TestBearerExpiryForMany has the token of two requests expire at once, and the
// token server fail the first that asks for another: the second one asks itself.
func TestBearerExpiryForMany(t *testing.T) {
	t.Parallel()
	tokens, _ := newTokenServer(t, 100)
	var waiting sync.WaitGroup
	var fail, hold atomic.Bool
	host := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" && fail.CompareAndSwap(true, false) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Method == http.MethodHead && hold.Load() {
			waiting.Done()
			waiting.Wait()
			hold.Store(false)
		}
		tokens.ServeHTTP(w, r)
	}))
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, password} })
	p, err := c.Push(t.Context(), host+"/app:1")
	if err != nil {
		t.Fatal(err)
	}
	tokens.mu.Lock()
	clear(tokens.tokens)
	tokens.mu.Unlock()
	waiting.Add(2)
	fail.Store(true)
	hold.Store(true)
	var pushes sync.WaitGroup
	for _, body := range []string{"one", "two"} {
		pushes.Go(func() {
			if err := p.Blob(t.Context(), registrytest.Descriptor("", []byte(body)), "", registrytest.Opener([]byte(body))); err != nil {
				t.Error(err)
			}
		})
	}
	pushes.Wait()
}

func TestBearerDenied(t *testing.T) {
	t.Parallel()
	s, host := newTokenServer(t, 1)
	s.deny = true
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, password} })
	_, err := c.Push(t.Context(), host+"/app:1")
	registrytest.CheckError(t, err, host, registry.ErrDenied, "prepare push", "does not accept the credentials")
	if s.count > 3 {
		t.Errorf("%d tokens for nothing", s.count)
	}
	_, err = registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
	registrytest.CheckError(t, err, host, registry.ErrDenied, "none are known")
}

func TestTokenServerFaults(t *testing.T) {
	t.Parallel()
	secret := "token-" + rand.Text()
	tests := map[string]struct {
		answer func(http.ResponseWriter, *http.Request) bool
		want   string // "": it works
	}{
		"503 once":     {registrytest.Times(1, registrytest.Say(503, "UNAVAILABLE")), ""},
		"reset once":   {registrytest.Times(1, registrytest.Reset), ""},
		"500 for ever": {registrytest.Always(registrytest.Say(500, "UNKNOWN")), "tried 1"},
		"404":          {registrytest.Always(registrytest.Say(404, "UNKNOWN")), "404"},
		"no JSON":      {registrytest.Always(registrytest.Body("text/html", "<html>")), "not JSON"},
		"no token":     {registrytest.Always(registrytest.Body("application/json", `{"refresh_token":"`+secret+`"}`)), "holds no token"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newTokenServer(t, 1<<20)
			host := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/token" || !tt.answer(w, r) {
					s.ServeHTTP(w, r)
				}
			}))
			_, err := registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			registrytest.CheckError(t, err, host, nil, "authenticate for", tt.want)
			if strings.Contains(err.Error(), secret) {
				t.Error("the error holds a token")
			}
		})
	}
}

// TestRedirect checks that a blob may be elsewhere, and that credentials stay.
func TestRedirect(t *testing.T) {
	t.Parallel()
	f := registrytest.NewFixture(t, registrytest.AMD64, 5000)
	var mu sync.Mutex
	var leaked []string
	elsewhere := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if a := r.Header.Get("Authorization"); a != "" {
			leaked = append(leaked, a)
		}
		if strings.HasSuffix(r.URL.Path, "denied") {
			registrytest.Say(403, "", "WWW-Authenticate", `Basic realm="give me"`)(w, r)
			return
		}
		_, _ = w.Write(f.Layers[0])
	}))
	to := "/blob"
	inner := newInner(t)
	host := registrytest.Serve(t, basicOnly(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, f.Descs[0].Digest.String()) {
			http.Redirect(w, r, "http://"+elsewhere+to+"?X-Amz-Signature=abcdef012345", http.StatusTemporaryRedirect)
			return
		}
		inner.ServeHTTP(w, r)
	})))
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = login{user, password} })
	f.Push(t.Context(), t, c, host+"/app:1")
	im := f.Check(t.Context(), t, c, host+"/app:1")

	to = "/denied"
	_, err := im.Blob(t.Context(), f.Descs[0].Descriptor)
	registrytest.CheckError(t, err, host, registry.ErrDenied)
	if strings.Contains(err.Error(), "abcdef") {
		t.Error("the error holds a signed query")
	}
	if len(leaked) > 0 {
		t.Errorf("another host got %q", leaked)
	}
}

func newInner(t *testing.T) http.Handler {
	t.Helper()
	h, err := embedded.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestRedirectedWrites(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		http.StatusFound:             "another one",
		http.StatusTemporaryRedirect: "stopped after 10 redirects",
	} {
		host := registrytest.NewFaulty(t, nil, registrytest.On("POST", "/", registrytest.Always(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, status)
		})))
		_, err := registrytest.NewClient(t, nil).Push(t.Context(), host+"/app:1")
		registrytest.CheckError(t, err, host, nil, want)
	}
}

type failingKeychain struct{}

func (failingKeychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return nil, errors.New(`error getting credentials - err: exit status 1, out: "token=abcdef password: hunter2"`)
}

func TestKeychainFails(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Keychain = failingKeychain{} })
	_, err := c.Resolve(t.Context(), host+"/app:1", registrytest.AMD64)
	registrytest.CheckError(t, err, host, nil, "read the credentials", "exit status 1")
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "abcdef") {
		t.Error("the error holds credentials")
	}
}

// TestDefaultKeychain goes the way from docker's config.json, with a helper too.
func TestDefaultKeychain(t *testing.T) {
	host := registrytest.Serve(t, basicOnly(newInner(t)))
	dir := t.TempDir()
	helper := fmt.Sprintf("#!/bin/sh\nread host\necho '{\"ServerURL\":\"'$host'\",\"Username\":%q,\"Secret\":%q}'\n", user, password)
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(helper), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("HOME", dir)
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("XDG_CONFIG_HOME", dir)
	auth := (&authn.AuthConfig{Username: user, Password: password})
	podman := filepath.Join(dir, "containers", "auth.json")
	if err := os.Mkdir(filepath.Dir(podman), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, config := range map[string]any{
		filepath.Join(dir, "config.json"): map[string]any{"auths": map[string]any{host: auth}},
		podman:                            map[string]any{"auths": map[string]any{host: auth}},
		dir + "/./config.json":            map[string]any{"credHelpers": map[string]string{host: "test"}},
	} {
		if err := os.WriteFile(path, registrytest.Encode(t, config), 0o600); err != nil {
			t.Fatal(err)
		}
		c := registry.New(registry.Options{})
		if _, err := c.Push(t.Context(), host+"/app:1"); err != nil {
			t.Errorf("%s: %v", registrytest.Encode(t, config), err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
