package proxy_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
	"github.com/bobbuild/bob/registry/proxy"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
)

var someDigest = digest.FromString("x").String()

const identityToken = "s3cr3t-identity"

// A tokenServer guards a registry by tokens, each good for a number of requests
// (Docker Registry v2 token and OAuth2 authentication).
type tokenServer struct {
	inner http.Handler
	uses  int  // of one token
	wide  bool // tokens for two repositories are given

	mu    sync.Mutex
	left  map[string]int
	asked []string // method and scopes of requests for tokens
}

func guardByTokens(t *testing.T, inner http.Handler, uses int) (*tokenServer, string) {
	t.Helper()
	s := &tokenServer{inner: inner, uses: uses, wide: true, left: make(map[string]int)}
	return s, serve(t, s)
}

func (s *tokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		s.give(w, r)
		return
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	s.mu.Lock()
	left := s.left[token]
	s.left[token]--
	s.mu.Unlock()
	if left <= 0 {
		say(401, "WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test \"quoted\"",error="invalid_token"`, r.Host))(w, r)
		return
	}
	s.inner.ServeHTTP(w, r)
}

// give gives a token to who asks by GET with user and password, or by POST with
// an identity token.
func (s *tokenServer) give(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	scopes := r.URL.Query()["scope"]
	u, p, _ := r.BasicAuth()
	ok := r.Method == http.MethodGet && u == user && p == password && r.URL.Query().Get("service") == `test "quoted"`
	if r.Method == http.MethodPost {
		scopes = strings.Fields(r.FormValue("scope"))
		ok = r.FormValue("grant_type") == "refresh_token" && r.FormValue("refresh_token") == identityToken && r.FormValue("service") == `test "quoted"`
	}
	s.asked = append(s.asked, r.Method+" "+strings.Join(scopes, " "))
	if !ok || (!s.wide && len(scopes) > 1) {
		say(401)(w, r)
		return
	}
	token := "s3cr3t-token-" + rand.Text()
	s.left[token] = s.uses
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300})
}

func (s *tokenServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// revoke ends all tokens.
func (s *tokenServer) revoke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.left)
}

func TestBearer(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		login  string
		method string
	}{
		"password":          {`{"username":"ann","password":"` + password + `"}`, "GET"},
		"identity token":    {`{"identitytoken":"` + identityToken + `"}`, "POST"},
		"token as password": {`{"username":"<token>","password":"` + identityToken + `"}`, "POST"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tokens, host := guardByTokens(t, images(), 1<<20)
			s := start(t, proxy.Options{Target: host + "/team/app:1", Auth: parseConfig(t, `{"auths":{"`+host+`":`+tt.login+`}}`)})
			im := image(t)
			push(t, s.ref("target"), im)
			wantImage(t, s.ref("target"), im)
			got := tokens.requests()
			slices.Sort(got)
			want := []string{tt.method + " repository:team/app:pull", tt.method + " repository:team/app:pull,push"}
			if !slices.Equal(got, want) {
				t.Errorf("asked for %q, want %q", got, want)
			}
		})
	}
}

// TestRegistryToken sends a token that needs no token server.
func TestRegistryToken(t *testing.T) {
	t.Parallel()
	const token = "s3cr3t-registry-token"
	inner := images()
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+token {
			say(401, "WWW-Authenticate", `Bearer realm="https://nobody.invalid/token"`)(w, r)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	s := start(t, proxy.Options{Target: host + "/app:1", Auth: parseConfig(t, `{"auths":{"`+host+`":{"registrytoken":"`+token+`"}}}`)})
	push(t, s.ref("target"), image(t))
}

// TestTokenRefused has token servers that give none.
func TestTokenRefused(t *testing.T) {
	t.Parallel()
	_, host := guardByTokens(t, images(), 1)
	s := start(t, proxy.Options{Target: host + "/app:1", Auth: dockerConfig(t, host, user, "s3cr3t-wrong")})
	if r := s.want(403, http.MethodPost, "/v2/target/blobs/uploads/", nil); r.code() != "DENIED" {
		t.Error(r.body)
	}
	for name, answer := range map[string]http.HandlerFunc{
		"broken":  say(503),
		"busy":    say(429),
		"no JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "s3cr3t") },
		"nothing": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"password":"s3cr3t"}`) },
	} {
		mux := http.NewServeMux()
		mux.HandleFunc("/token", answer)
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			say(401, "WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)(w, r)
		})
		s := start(t, proxy.Options{Target: serve(t, mux) + "/app:1"})
		if r := s.ask(http.MethodPost, "/v2/target/blobs/uploads/", nil); r.status != 429 && r.status < 500 {
			t.Errorf("%s: status %d is not to be tried again", name, r.status)
		}
	}
}

// TestTokenRedirect has a token server that sends logins to another host.
func TestTokenRedirect(t *testing.T) {
	t.Parallel()
	thief := &spy{inner: say(401)}
	thiefHost := serve(t, thief)
	for _, login := range []string{`{"username":"ann","password":"` + password + `"}`, `{"identitytoken":"` + identityToken + `"}`} {
		mux := http.NewServeMux()
		mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
			// net/http takes another port for the same host.
			say(307, "Location", "http://"+strings.Replace(thiefHost, "127.0.0.1", "localhost", 1)+r.URL.RequestURI())(w, r)
		})
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			say(401, "WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)(w, r)
		})
		host := strings.Replace(serve(t, mux), "127.0.0.1", "localhost", 1)
		s := start(t, proxy.Options{Target: host + "/app:1", Auth: parseConfig(t, `{"auths":{"`+host+`":`+login+`}}`)})
		if r := s.ask(http.MethodPost, "/v2/target/blobs/uploads/", nil); r.status < 400 {
			t.Errorf("status %d", r.status)
		}
	}
	for _, r := range thief.requests() {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "" || r.Method != http.MethodGet || len(body) > 0 {
			t.Errorf("the other host got %s %v", r.Method, r.Header)
		}
	}
	if len(thief.requests()) == 0 {
		t.Error("nothing was redirected")
	}
}

// TestExpiry pushes with tokens that end in the middle of it: by their time, and
// because the registry says so.
func TestExpiry(t *testing.T) {
	t.Parallel()
	tokens, host := guardByTokens(t, images(), 1<<20)
	clock := new(patiencetest.Clock)
	s := start(t, proxy.Options{Target: host + "/app:1", Auth: dockerConfig(t, host, user, password), Patience: patience.Policy{Clock: clock}})
	pass := func(d time.Duration) {
		if err := clock.Sleep(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	begin := func() string {
		return s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil).header.Get("Location")
	}
	blob := bytes.Repeat([]byte("layer"), 1<<20)
	finish := "?digest=" + digest.FromBytes(blob).String()

	// The server's 300 s end 30 s early.
	begin()
	pass(269 * time.Second)
	if location := begin(); len(tokens.requests()) != 1 {
		t.Errorf("the token isn't used to its end: %s", location)
	}

	// By time: a new one is there before the body is sent.
	location := begin()
	tokens.revoke()
	pass(time.Second)
	s.want(201, http.MethodPut, location+finish, bytes.NewReader(blob))
	if got := len(tokens.requests()); got != 2 {
		t.Errorf("%d tokens, want 2", got)
	}

	// By the registry, which says so before it takes the body: nothing is lost.
	location = begin()
	tokens.revoke()
	s.want(201, http.MethodPut, location+finish, bytes.NewReader(blob))
	if got := len(tokens.requests()); got != 3 {
		t.Errorf("%d tokens, want 3", got)
	}

	// The same for manifests and reads.
	for range 3 {
		tokens.revoke()
		s.want(200, http.MethodHead, "/v2/target/blobs/"+digest.FromBytes(blob).String(), nil)
	}
	tokens.revoke()
	index, err := random.Index(1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	s.want(201, http.MethodPut, "/v2/target/manifests/1", bytes.NewReader(manifest), "Content-Type", string(types.OCIImageIndex))
}

// TestExpiryTooLate has a registry that reads a body before it says that the token
// has ended: only the client can send it again.
func TestExpiryTooLate(t *testing.T) {
	t.Parallel()
	var tokens *tokenServer
	var once sync.Once
	late := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			once.Do(func() { _, _ = io.ReadFull(r.Body, make([]byte, 1000)) })
		}
		tokens.ServeHTTP(w, r)
	})
	tokens, _ = guardByTokens(t, images(), 1<<20)
	host := serve(t, late)
	s := start(t, proxy.Options{Target: host + "/app:1", Auth: dockerConfig(t, host, user, password)})
	blob := bytes.Repeat([]byte("layer"), 1000)
	location := s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil).header.Get("Location") + "?digest=" + digest.FromBytes(blob).String()
	tokens.revoke()
	r := s.want(503, http.MethodPut, location, bytes.NewReader(blob))
	if r.header.Get("Retry-After") == "" || r.code() != "UNAVAILABLE" {
		t.Errorf("%v %s", r.header, r.body)
	}
	s.want(201, http.MethodPut, location, bytes.NewReader(blob))
}

// TestExpiryForMany has two requests find at the same time that their token has
// ended, and a token server that fails for the first of them: the other isn't sent
// without a token, which would look like a lack of rights.
func TestExpiryForMany(t *testing.T) {
	t.Parallel()
	tokens, _ := guardByTokens(t, images(), 1<<20)
	var waiting sync.WaitGroup
	var fail, hold atomic.Bool
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" && fail.CompareAndSwap(true, false) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if r.Method == http.MethodPost && hold.Load() {
			waiting.Done()
			waiting.Wait()
			hold.Store(false)
		}
		tokens.ServeHTTP(w, r)
	}))
	s := start(t, proxy.Options{Target: host + "/app:1", Auth: dockerConfig(t, host, user, password)})
	s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil)
	tokens.revoke()
	waiting.Add(2)
	fail.Store(true)
	hold.Store(true)
	statuses := make(chan int)
	for range 2 {
		go func() { statuses <- s.ask(http.MethodPost, "/v2/target/blobs/uploads/", nil).status }()
	}
	got := []int{<-statuses, <-statuses}
	if slices.Sort(got); !slices.Equal(got, []int{202, 503}) {
		t.Errorf("statuses %d, want one 202 and one 503", got)
	}
}

// TestMountScopes asks for a token for both repositories, and does without where
// none is given.
func TestMountScopes(t *testing.T) {
	t.Parallel()
	for _, wide := range []bool{true, false} {
		tokens, host := guardByTokens(t, images(), 1<<20)
		tokens.wide = wide
		s := start(t, proxy.Options{Base: host + "/team/base:1", Target: host + "/team/app:1", Auth: dockerConfig(t, host, user, password)})
		r := s.ask(http.MethodPost, "/v2/target/blobs/uploads/?from=base&mount="+someDigest, nil)
		if r.status != 202 {
			t.Errorf("status %d", r.status)
		}
		want := []string{"GET repository:team/app:pull,push repository:team/base:pull"}
		if !wide {
			want = append(want, "GET repository:team/app:pull,push")
		}
		if got := tokens.requests(); !slices.Equal(got, want) {
			t.Errorf("asked for %q, want %q", got, want)
		}
	}
}

// TestExpectationFailed has a registry that knows no Expect.
func TestExpectationFailed(t *testing.T) {
	t.Parallel()
	inner := images()
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Expect") != "" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	s := start(t, proxy.Options{Target: host + "/app:1"})
	s.upload("target", []byte("layer"))
}
