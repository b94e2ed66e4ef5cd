package proxy_test

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
	"github.com/bobbuild/bob/registry/proxy"
)

// An upside is a registry that answers everything with one answer, once a login was
// accepted, and a token server.
type upside struct {
	t      *testing.T
	status int
	header http.Header
	body   []byte

	mu   sync.Mutex
	seen []*http.Request
}

func (u *upside) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	u.mu.Lock()
	u.seen = append(u.seen, r)
	count := len(u.seen)
	u.mu.Unlock()
	if count > 200 {
		u.t.Fatal("it asks without end")
	}
	answer := func(status int, header http.Header, body []byte) (*http.Response, error) {
		resp := &http.Response{
			StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header,
			Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), Request: r,
		}
		if r.Method == http.MethodHead {
			resp.Body = http.NoBody
		}
		return resp, nil
	}
	switch {
	case r.URL.Host == "token.example":
		return answer(200, http.Header{}, []byte(`{"token":"s3cr3t-token","expires_in":300}`))
	case r.URL.Path == "/v2/":
		return answer(401, http.Header{"Www-Authenticate": {`Bearer realm="https://token.example/t",service="x"`}}, nil)
	}
	return answer(u.status, u.header.Clone(), u.body)
}

// FuzzProxy sends a proxy a request of any kind, as bytes, and has the registry behind
// it answer with anything: what reaches the registry is about the repositories that
// the proxy serves, and no login or token leaves for the client or for another host.
func FuzzProxy(f *testing.F) {
	for _, seed := range []struct {
		request string
		status  int
		header  string
		body    string
	}{
		{"GET /v2/target/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n", 200, "Content-Type: x", `{"manifests":[{"digest":"` + someDigest + `"}]}`},
		{"GET /v2/target/blobs/" + someDigest + " HTTP/1.1\r\nHost: x\r\nRange: bytes=1-\r\n\r\n", 307, "Location: https://store.example/x", ""},
		{"GET /v2/target/blobs/" + someDigest + " HTTP/1.1\r\nHost: x\r\n\r\n", 302, "Location: /v2/other/blobs/x", ""},
		{"POST /v2/target/blobs/uploads/?mount=" + someDigest + "&from=base HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 202, "Location: //elsewhere.example/u?x", ""},
		{"POST /v2/target/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 401, `WWW-Authenticate: Bearer realm="https://thief.example/"`, ""},
		{"PUT /v2/target/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", 415, "Retry-After: 1", `{"errors":[{"code":"X","message":"y"}]}`},
		{"GET /v2/a/b/manifests/1?ns=elsewhere.example HTTP/1.1\r\nHost: x\r\n\r\n", 200, "", "{}"},
		{"GET /v2/../v2/target/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n", 200, "", ""},
		{"GET http://registry.example/v2/other/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n", 200, "", ""},
	} {
		f.Add([]byte(seed.request), seed.status, seed.header, []byte(seed.body))
	}
	auth := dockerConfig(f, "registry.example", user, password)
	f.Fuzz(func(t *testing.T, request []byte, status int, header string, body []byte) {
		if status < 200 || status > 599 || strings.Contains(header+string(body), "s3cr3t") || bytes.Contains(request, []byte("s3cr3t")) {
			return // what nobody got nobody can say
		}
		h, err := textproto.NewReader(bufio.NewReader(strings.NewReader(strings.ReplaceAll(header, "\n", "\r\n") + "\r\n\r\n"))).ReadMIMEHeader()
		if err != nil {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(request)))
		if err != nil {
			return
		}
		log := new(witness)
		p := proxyWith(t, log, auth)
		up := &upside{t: t, status: status, header: http.Header(h), body: body}
		p.Upside(up)
		w := httptest.NewRecorder()
		func() {
			defer func() {
				if v := recover(); v != nil && v != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
					panic(v)
				}
			}()
			p.ServeHTTP(w, r)
		}()
		checkClient(t, w, log)
		for _, asked := range up.seen {
			checkAsked(t, asked, request, http.Header(h))
		}
	})
}

func proxyWith(t *testing.T, log *witness, auth proxy.Credentials) *proxy.Proxy {
	t.Helper()
	p, err := proxy.New(proxy.Options{
		Base: "registry.example/team/base:1", Target: "registry.example/team/app:1", Auth: auth, Log: slog.New(slog.NewJSONHandler(log, nil)),
		Patience: patience.Policy{Limit: time.Second, Clock: new(patiencetest.Clock)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkClient looks for secrets in what the client and the log got.
func checkClient(t *testing.T, w *httptest.ResponseRecorder, log *witness) {
	t.Helper()
	var all strings.Builder
	_ = w.Header().Write(&all)
	all.WriteString(w.Body.String() + log.String())
	for _, secret := range secrets {
		if strings.Contains(all.String(), secret) {
			t.Errorf("it tells a secret: %s", all.String())
		}
	}
	for _, name := range []string{"Www-Authenticate", "Set-Cookie", "Authorization"} {
		if w.Header().Get(name) != "" {
			t.Errorf("the client got %s", name)
		}
	}
}

// checkAsked checks a request that the proxy has made because of request.
func checkAsked(t *testing.T, asked *http.Request, request []byte, answer http.Header) {
	t.Helper()
	host := asked.URL.Host
	mirror := bytes.Contains(request, []byte("ns="))
	// A registry may name any token server; a mirror has tokens of its own.
	home := host == "registry.example" || mirror
	token := host == "token.example" || names(answer.Values("WWW-Authenticate"), host)
	a := asked.Header.Get("Authorization")
	if strings.HasPrefix(a, "Bearer ") && !home || strings.HasPrefix(a, "Basic ") && !home && !token {
		t.Errorf("%s %s got %q", asked.Method, asked.URL, a)
	}
	if asked.Method == http.MethodDelete && !strings.Contains(asked.URL.Path, "/u") {
		t.Errorf("%q deletes %s", request, asked.URL)
	}
	path := asked.URL.Path
	redirected := !strings.HasPrefix(path, "/v2/team/app/") && !strings.HasPrefix(path, "/v2/team/base/") && path != "/v2/"
	reads := slices.Contains([]string{http.MethodGet, http.MethodHead}, asked.Method)
	// A registry may send a read to another path of its own.
	if home && redirected && !mirror && !reads {
		t.Errorf("%q reaches %s %s", request, asked.Method, asked.URL)
	}
}

// names reports whether challenges name host, which they may write with backslashes
// before its characters, and with characters that an address has in another form.
func names(challenges []string, host string) bool {
	text := strings.ReplaceAll(strings.Join(challenges, " "), `\`, "")
	plain, err := url.PathUnescape(host)
	return strings.Contains(text, host) || err == nil && strings.Contains(text, plain)
}
