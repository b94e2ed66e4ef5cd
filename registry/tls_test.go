package registry_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
)

// dialTo is a transport to which every host is srv.
func dialTo(srv *httptest.Server) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}}
}

// choosy hangs up without a word on who begins with TLS, or with anything else.
type choosy struct {
	net.Listener

	tls bool // it wants TLS
}

func (l *choosy) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		first := bufio.NewReader(conn)
		const handshake = 0x16 // RFC 8446 section 5.1
		if b, err := first.Peek(1); err == nil && (b[0] == handshake) == l.tls {
			return &begun{conn, first}, nil
		}
		_ = conn.Close()
	}
}

// begun is a connection of which a part was read.
type begun struct {
	net.Conn

	r *bufio.Reader
}

func (c *begun) Read(p []byte) (int, error) { return c.r.Read(p) }

// TestSchemes tries every kind of host against servers with TLS and without.
func TestSchemes(t *testing.T) {
	t.Parallel()
	inner := newInner(t)
	plain := httptest.NewServer(inner)
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(inner)
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = nil
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate()) // for example.com and loopback addresses
	trusting := func() *http.Transport {
		tr := dialTo(secure)
		tr.TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig.Clone() //nolint:forcetypeassert // httptest's
		return tr
	}

	curt := httptest.NewUnstartedServer(inner)
	curt.Listener = &choosy{Listener: curt.Listener, tls: true}
	curt.StartTLS()
	t.Cleanup(curt.Close)
	curtly := httptest.NewUnstartedServer(inner)
	curtly.Listener = &choosy{Listener: curtly.Listener}
	curtly.Start()
	t.Cleanup(curtly.Close)

	tests := []struct {
		name      string
		host      string
		transport *http.Transport
		insecure  bool
		want      string // in the error; "": it works
		notice    string
	}{
		{"loopback, plain", "127.0.0.1:5000", dialTo(plain), false, "", ""},
		{"loopback without port, plain", "localhost", dialTo(plain), false, "", ""},
		{"loopback of another number, plain", "127.8.9.10:1", dialTo(plain), false, "", ""},
		{"loopback, IPv6, plain", "[::1]:5000", dialTo(plain), false, "", ""},
		{"loopback, TLS of nobody", "localhost:5000", dialTo(secure), false, "", ""},
		{"loopback, TLS of nobody, hangs up on others", "localhost:5000", dialTo(curt), false, "", ""},
		{"loopback without port, TLS of nobody", "127.0.0.1", dialTo(curt), false, "", ""},
		{"loopback, plain, hangs up on TLS", "localhost:5000", dialTo(curtly), false, "", ""},
		{"host, TLS of nobody, insecure, hangs up on others", "example.org:5000", dialTo(curt), true, "", ""},
		{"host, plain, insecure, hangs up on TLS", "10.1.2.3:5000", dialTo(curtly), true, "", "plain HTTP is used"},
		{"host, TLS", "example.com", trusting(), false, "", ""},
		{"host, TLS, insecure", "example.com", trusting(), true, "", ""},
		{"host, TLS of nobody", "example.com", dialTo(secure), false, "certificate not trusted", ""},
		{"host, TLS of another", "example.org", trusting(), false, "use a name that the certificate holds", ""},
		{"host, TLS of nobody, insecure", "example.org:5000", dialTo(secure), true, "", ""},
		{"host, plain", "example.com", dialTo(plain), false, "speaks plain HTTP, not https; allow that with --insecure", ""},
		{"private host, plain", "10.1.2.3:5000", dialTo(plain), false, "speaks plain HTTP", ""},
		{"host, plain, insecure", "10.1.2.3:5000", dialTo(plain), true, "", "plain HTTP is used"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var notices []string
			c := registrytest.NewClient(t, func(o *registry.Options) {
				o.Transport, o.Insecure = tt.transport, tt.insecure
				o.Notice = func(s string) {
					mu.Lock()
					defer mu.Unlock()
					notices = append(notices, s)
				}
			})
			f := registrytest.NewFixture(t, registrytest.AMD64, 1<<20)
			ref := tt.host + "/app:" + strings.Map(func(r rune) rune {
				if r == ' ' || r == ',' {
					return '-'
				}
				return r
			}, tt.name)
			if tt.want != "" {
				_, err := c.Push(t.Context(), ref)
				registrytest.CheckError(t, err, tt.host, nil, tt.want)
				return
			}
			f.Push(t.Context(), t, c, ref)
			f.Check(t.Context(), t, c, ref)
			if told := slices.ContainsFunc(notices, func(s string) bool { return strings.Contains(s, "plain HTTP") }); told != (tt.notice != "") {
				t.Errorf("notices %q", notices)
			}
		})
	}
}

// TestHTTP1 checks that no request uses HTTP/2, with our own transport as well.
func TestHTTP1(t *testing.T) {
	t.Parallel()
	inner := newInner(t)
	var mu sync.Mutex
	seen := make(map[string]int)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.Proto]++
		seen[r.Header.Get("User-Agent")]++
		mu.Unlock()
		inner.ServeHTTP(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "https://")
	f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 1000)
	for _, transport := range []http.RoundTripper{nil, &http.Transport{ForceAttemptHTTP2: true}} {
		c := registrytest.NewClient(t, func(o *registry.Options) { o.Transport, o.UserAgent = transport, "bob/test" })
		f.Push(t.Context(), t, c, host+"/app:1")
		f.Check(t.Context(), t, c, host+"/app:1")
	}
	if len(seen) != 2 || seen["HTTP/1.1"] != seen["bob/test"] {
		t.Errorf("requests by protocol and user agent: %v", seen)
	}
}

// TestLocationBehindProxy has a registry that believes to be on plain HTTP.
func TestLocationBehindProxy(t *testing.T) {
	t.Parallel()
	inner := newInner(t)
	for name, rewrite := range map[string]func(location, host string) string{
		"relative":         func(l, _ string) string { return l + "?_state=a%2Bb%3D" },
		"absolute":         func(l, h string) string { return "https://" + h + l },
		"absolute, http":   func(l, h string) string { return "http://" + h + l + "?x=1" },
		"to its directory": func(l, _ string) string { return l[strings.LastIndex(l, "/")+1:] },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if state := r.URL.Query().Get("_state"); name == "relative" && r.Method == http.MethodPut &&
					strings.Contains(r.URL.Path, "uploads") && state != "a+b=" {
					t.Errorf("the query came back as %q", r.URL.RawQuery)
				}
				inner.ServeHTTP(&locationWriter{ResponseWriter: w, rewrite: func(l string) string { return rewrite(l, r.Host) }}, r)
			}))
			t.Cleanup(srv.Close)
			ref := strings.TrimPrefix(srv.URL, "https://") + "/app:" + digest.FromString(name).Encoded()
			f := registrytest.NewFixture(t, registrytest.AMD64, 1000, 1000)
			c := registrytest.NewClient(t, nil)
			f.Push(t.Context(), t, c, ref)
			f.Check(t.Context(), t, c, ref)
		})
	}
}

type locationWriter struct {
	http.ResponseWriter

	rewrite func(string) string
}

func (w *locationWriter) WriteHeader(status int) {
	if l := w.Header().Get("Location"); status == http.StatusAccepted && l != "" {
		w.Header().Set("Location", w.rewrite(l))
	}
	w.ResponseWriter.WriteHeader(status)
}

// TestHub checks how references to Docker Hub are read and written.
func TestHub(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(newInner(t))
	t.Cleanup(srv.Close)
	f := registrytest.NewFixture(t, registrytest.AMD64, 10)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Transport, o.Insecure = dialTo(srv), true })
	f.Push(t.Context(), t, c, "hello")
	for _, ref := range []string{"hello:latest", "library/hello", "docker.io/library/hello:latest", "index.docker.io/library/hello"} {
		im := f.Check(t.Context(), t, c, ref)
		if want := "docker.io/library/hello@" + digest.FromBytes(f.Manifest).String(); im.Reference != want {
			t.Errorf("%s is %s", ref, im.Reference)
		}
	}
	_, err := c.Resolve(t.Context(), "ghost:2", registrytest.AMD64)
	registrytest.CheckError(t, err, "docker.io", oci.ErrNotFound, "docker.io/library/ghost:2", `"docker login docker.io"`)
}

// plainTransport is nobody's http.Transport, and hides what bodies can do.
type plainTransport struct{ inner http.RoundTripper }

func (p plainTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = struct{ io.ReadCloser }{req.Body}
	}
	return p.inner.RoundTrip(req)
}

func TestOwnTransport(t *testing.T) {
	t.Parallel()
	host := registrytest.ServeEmbedded(t)
	c := registrytest.NewClient(t, func(o *registry.Options) { o.Transport = plainTransport{&http.Transport{}} })
	f := registrytest.NewFixture(t, registrytest.AMD64, 5<<20+1, 100)
	f.Push(t.Context(), t, c, host+"/app:1")
	im := f.Check(t.Context(), t, c, host+"/app:1")
	if status, _ := registrytest.Request(t, http.MethodDelete, "http://"+host+"/v2/app/blobs/"+f.Descs[1].Digest.String(), "", nil); status != http.StatusAccepted {
		t.Errorf("DELETE answers %d", status)
	}
	_, err := registrytest.ReadBlob(t.Context(), im, f.Descs[1].Descriptor)
	registrytest.CheckError(t, err, host, oci.ErrNotFound, "no such blob")
}
