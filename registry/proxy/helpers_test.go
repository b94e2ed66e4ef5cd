package proxy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
	"github.com/bobbuild/bob/registry/proxy"
)

func TestMain(m *testing.M) {
	// httptest.Server.Close closes the connections of all clients, if only it finds them.
	http.DefaultTransport = struct{ http.RoundTripper }{http.DefaultTransport}
	os.Exit(m.Run())
}

const (
	user     = "ann"
	password = "s3cr3t-passw0rd"
)

// serve starts a server and returns its host.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// images is a registry without authentication, in memory.
func images() http.Handler { return ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))) }

// A witness keeps what a log or an answer says, to look for credentials in it.
type witness struct {
	mu   sync.Mutex
	text strings.Builder
}

func (w *witness) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *witness) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// A setup is a proxy at work.
type setup struct {
	t     *testing.T
	host  string
	proxy *proxy.Proxy
	log   *witness
}

// start starts a proxy; at the end of the test its log must hold no credentials.
func start(t *testing.T, o proxy.Options) *setup {
	t.Helper()
	s := &setup{t: t, log: new(witness)}
	o.Log = slog.New(slog.NewJSONHandler(s.log, nil))
	if o.Patience == (patience.Policy{}) {
		o.Patience.Clock = new(patiencetest.Clock)
	}
	p, err := proxy.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.proxy = p
	srv := httptest.NewUnstartedServer(p)
	srv.Config.DisableGeneralOptionsHandler = true
	srv.Start()
	t.Cleanup(srv.Close)
	s.host = srv.Listener.Addr().String()
	t.Cleanup(func() {
		s.innocent("the log", s.log.String())
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	return s
}

// secrets are what no client may see: all that tests use as passwords and tokens
// begin so, plain or in base64.
var secrets = []string{"s3cr3t", "czNjcjN0", "M2NyM3", "zY3IzdC"}

func (s *setup) innocent(what, text string) {
	s.t.Helper()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			s.t.Errorf("%s holds credentials: %s", what, text)
		}
	}
}

// A reply is an answer to a client that follows no redirects.
type reply struct {
	status int
	header http.Header
	body   string
}

// code is the first error code in a reply.
func (r reply) code() string {
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal([]byte(r.body), &answer) != nil || len(answer.Errors) == 0 || answer.Errors[0].Message == "" {
		return "no error of the distribution-spec: " + r.body
	}
	return answer.Errors[0].Code
}

// ask makes a request of the proxy. Headers are pairs of name and value.
func (s *setup) ask(method, path string, body io.Reader, headers ...string) reply {
	s.t.Helper()
	target := path
	if strings.HasPrefix(path, "/") {
		target = "http://" + s.host + path
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, target, body)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	s.innocent(method+" "+path, fmt.Sprint(resp.Header, string(content)))
	for _, name := range []string{"Www-Authenticate", "Set-Cookie"} {
		if resp.Header.Get(name) != "" {
			s.t.Errorf("%s %s: the answer has %s", method, path, name)
		}
	}
	return reply{resp.StatusCode, resp.Header, string(content)}
}

// want fails the test unless the request is answered with status.
func (s *setup) want(status int, method, path string, body io.Reader, headers ...string) reply {
	s.t.Helper()
	r := s.ask(method, path, body, headers...)
	if r.status != status {
		s.t.Errorf("%s %s: status %d, want %d: %s", method, path, r.status, status, r.body)
	}
	return r
}

// upload sends a blob and fails the test unless it arrives.
func (s *setup) upload(alias string, blob []byte) {
	s.t.Helper()
	begun := s.want(202, http.MethodPost, "/v2/"+alias+"/blobs/uploads/", nil)
	s.want(201, http.MethodPut, begun.header.Get("Location")+"?digest="+digest.FromBytes(blob).String(), bytes.NewReader(blob))
}

func (s *setup) ref(alias string) name.Reference {
	s.t.Helper()
	return parse(s.t, s.host+"/"+alias)
}

func parse(t *testing.T, ref string) name.Reference {
	t.Helper()
	parsed, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func image(t *testing.T) v1.Image {
	t.Helper()
	im, err := random.Image(2000, 3)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// push pushes by go-containerregistry's client.
func push(t *testing.T, ref name.Reference, im v1.Image, options ...remote.Option) {
	t.Helper()
	if err := remote.Write(ref, im, append(options, remote.WithContext(t.Context()))...); err != nil {
		t.Fatal(err)
	}
}

// wantImage pulls ref, layers included, and compares it with im.
func wantImage(t *testing.T, ref name.Reference, im v1.Image, options ...remote.Option) {
	t.Helper()
	got, err := remote.Image(ref, append(options, remote.WithContext(t.Context()))...)
	if err != nil {
		t.Fatal(err)
	}
	have, err := got.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if want := digestOf(t, im); have.String() != want {
		t.Fatalf("%s is %s, want %s", ref, have, want)
	}
	layers, err := got.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, content); err != nil { // verifies the digest
			t.Fatal(err)
		}
		if err := content.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func digestOf(t *testing.T, im interface{ Digest() (v1.Hash, error) }) string {
	t.Helper()
	h, err := im.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func dockerConfig(t testing.TB, key, user, password string) proxy.Credentials {
	t.Helper()
	return parseConfig(t, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, base64.StdEncoding.EncodeToString([]byte(user+":"+password))))
}

func parseConfig(t testing.TB, text string) proxy.Credentials {
	t.Helper()
	c, err := proxy.ParseDockerConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// say answers with a fixed status and headers, pairs of name and value.
func say(status int, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Add(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
	}
}

// A spy keeps the requests that a registry got.
type spy struct {
	inner http.Handler

	mu   sync.Mutex
	seen []*http.Request
}

func (s *spy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.seen = append(s.seen, r.Clone(r.Context()))
	s.mu.Unlock()
	s.inner.ServeHTTP(w, r)
}

func (s *spy) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// lines are the requests as method and URI.
func (s *spy) lines() []string {
	var lines []string
	for _, r := range s.requests() {
		lines = append(lines, r.Method+" "+r.RequestURI)
	}
	return lines
}
