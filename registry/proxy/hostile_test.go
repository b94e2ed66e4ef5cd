package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/registry/proxy"
)

// raw sends bytes as they are and returns the statuses of the answers until the
// proxy closes the connection or stops answering after the last request.
func (s *setup) raw(text string) []string {
	s.t.Helper()
	conn, err := new(net.Dialer).DialContext(s.t.Context(), "tcp", s.host)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		s.t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil { //nolint:forcetypeassert // it was dialed as one
		s.t.Fatal(err)
	}
	var statuses []string
	for in := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return statuses
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		s.innocent(text, string(body))
		statuses = append(statuses, resp.Status[:3])
	}
}

// TestHostileRequests sends what no client would: none of it may reach the
// registry, and none may be taken for something else.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	origin := &spy{inner: basicOnly(images())}
	host := serve(t, origin)
	s := start(t, proxy.Options{Base: host + "/team/base:1", Target: host + "/team/app:1", Auth: dockerConfig(t, host, user, password)})
	line := func(first string) string { return first + "\r\nHost: x\r\nConnection: close\r\n\r\n" }
	d := someDigest
	for _, path := range []string{
		// Other repositories, by every kind of path.
		"/v2/team/app/manifests/1", "/v2/target/../base/manifests/1", "/v2/../v2/target/manifests/1", "/v2/target/manifests/../../../team/x/manifests/1",
		"/v2//target/manifests/1", "//v2/target/manifests/1", "/v2/target//manifests/1", "/v2/target/./manifests/1", "/v2/target/manifests/1/", "/v2/target/manifests/",
		"/v2/target%2f..%2fteam%2fx/manifests/1", "/v2/target%2Fx/manifests/1", "/v2/%74arget/manifests/1", "/v2/target/manifests/%31", "/v2/target/manifests/1%2f..",
		"/v2/target/manifests/%2e%2e", "/v2/target/manifests/..", "/v2/target/manifests/.", "/v2/target/blobs/" + strings.Replace(d, ":", "%3A", 1),
		"/v2/target/manifests/1%00", "/v2/target/manifests/1%0d%0aX:y", "/v2/target\\manifests/1", "/v2/target/manifests/1;x", "/v2/Target/manifests/1", "/V2/target/manifests/1",
		"/v2/target/blobs/sha256:1", "/v2/target/blobs/x", "/v2/target/blobs/md5:" + strings.Repeat("0", 32), "/v2/target/blobs/" + d + "/x", "/v2/target/blobs/../manifests/1",
		"/v2/target/blobs/uploads/../../../x/blobs/uploads/", "/v2/target/blobs/uploads/a/b", "/v2/target/blobs/uploads",
		"/v2/target/manifests/1@" + d, "/v2/target/manifests/" + strings.Repeat("a", 300), "/v2/" + strings.Repeat("a/", 200) + "manifests/1",
		// What pushing and pulling don't take.
		"/v2/_catalog", "/v2/target/tags/list", "/v2/target/referrers/" + d, "/v2/target", "/v2/target/", "/", "/v1/", "/token", "/debug/pprof/", "/metrics", "/favicon.ico",
		// Queries that mean another place.
		"/v2/target/manifests/1?ns=" + host, "/v2/target/manifests/1?ns=" + host + "&ns=x", "/v2/target/manifests/1?%6es=..", "/v2/target/blobs/" + d + "?;",
		// Not in the form of an origin server.
		"http://" + host + "/v2/team/app/manifests/1", "http://x/v2/target/manifests/1", "https://x/v2/", "*",
	} {
		if path == "/v2/target/manifests/1?ns="+host {
			continue // TestMirrors
		}
		before := len(origin.requests())
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE"} {
			got := s.raw(line(method + " " + path + " HTTP/1.1"))
			if len(got) != 1 || (got[0] != "404" && got[0] != "400") {
				t.Errorf("%s %s: %q", method, path, got)
			}
		}
		if now := origin.lines(); len(now) > before {
			t.Errorf("%s has reached the registry: %q", path, now[before:])
		}
	}
	before := len(origin.requests())
	for _, first := range []string{
		"DELETE /v2/target/manifests/1", "DELETE /v2/target/manifests/" + d, "DELETE /v2/target/blobs/" + d, "POST /v2/target/manifests/1", "PATCH /v2/target/manifests/1",
		"PUT /v2/target/blobs/" + d, "GET /v2/target/blobs/uploads/", "PUT /v2/target/blobs/uploads/", "DELETE /v2/target/blobs/uploads/", "HEAD /v2/target/blobs/uploads/X",
		"OPTIONS /v2/", "OPTIONS *", "TRACE /v2/target/manifests/1", "CONNECT " + host, "CONNECT /v2/target/manifests/1", "get /v2/target/manifests/1", "G\x00T /v2/",
		"PROPFIND /v2/target/manifests/1", "POST /v2/", "PUT /healthz", "PRI *",
	} {
		got := s.raw(line(first + " HTTP/1.1"))
		if len(got) != 1 || (got[0] != "404" && got[0] != "400") {
			t.Errorf("%q: %q", first, got)
		}
	}
	for name, text := range map[string]string{
		"two lengths":           "POST /v2/target/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
		"two ways to chunk":     "POST /v2/target/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"odd chunking":          "POST /v2/target/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"negative length":       "POST /v2/target/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"space before colon":    "GET /v2/target/manifests/1 HTTP/1.1\r\nHost: x\r\nAccept : x\r\n\r\n",
		"folded header":         "GET /v2/target/manifests/1 HTTP/1.1\r\n Host: x\r\n\r\n",
		"two hosts":             "GET /v2/target/manifests/1 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"no host":               "GET /v2/target/manifests/1 HTTP/1.1\r\n\r\n",
		"bad host":              "GET /v2/target/manifests/1 HTTP/1.1\r\nHost: a b\r\n\r\n",
		"NUL in a header":       "GET /v2/target/manifests/1 HTTP/1.1\r\nHost: x\r\nAccept: a\x00b\r\n\r\n",
		"another protocol":      "GET /v2/target/manifests/1 HTTP/3.0\r\nHost: x\r\n\r\n",
		"headers without end":   "GET /v2/target/manifests/1 HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", 2<<20),
		"space in the target":   "GET /v2/target/manifests/1 x HTTP/1.1\r\nHost: x\r\n\r\n",
		"second request inside": "GET /v2/target/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\nTransfer-Encoding: xx\r\n\r\nGET /v2/team/x/manifests/1 HTTP/1.1\r\n\r\n",
	} {
		for _, status := range s.raw(text) {
			if !slices.Contains([]string{"400", "431", "501", "505"}, status) {
				t.Errorf("%s: status %s", name, status)
			}
		}
	}
	if now := origin.lines(); len(now) > before {
		t.Errorf("they have reached the registry: %q", now[before:])
	}
}

// TestSmuggling sends both lengths of a body: one request reaches the registry,
// without either of them, and what follows is never taken for another.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	origin := &spy{inner: images()}
	host := serve(t, origin)
	s := start(t, proxy.Options{Target: host + "/team/app:1"})
	got := s.raw("POST /v2/target/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"0\r\n\r\nGET /v2/team/x/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n")
	for _, line := range origin.lines() {
		if strings.Contains(line, "team/x") {
			t.Errorf("a hidden request has reached the registry: %q", origin.lines())
		}
	}
	for _, status := range got {
		if status != "400" && status != "202" && status != "404" {
			t.Errorf("statuses %q", got)
		}
	}
	for _, r := range origin.requests() {
		if r.Method == http.MethodPost && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) {
			t.Errorf("the registry got a body: %d %q", r.ContentLength, r.TransferEncoding)
		}
	}
}

// TestHeaders sends headers that must stay with the proxy, and has a registry
// answer with such.
func TestHeaders(t *testing.T) {
	t.Parallel()
	origin := &spy{inner: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, name := range []string{
			"Set-Cookie", "WWW-Authenticate", "Proxy-Authenticate", "Connection", "Keep-Alive", "Upgrade", "X-Any", "Server", "Via", "Access-Control-Allow-Origin",
			"Docker-Upload-UUID", "Link", "Warning", "Strict-Transport-Security", "Authentication-Info", "Trailer", "Location", "Refresh",
		} {
			w.Header().Set(name, "x")
		}
		w.Header().Set("Etag", `"e"`)
		w.Header().Set("Docker-Content-Digest", someDigest)
	})}
	host := serve(t, origin)
	s := start(t, proxy.Options{Target: host + "/app:1"})
	before := len(origin.requests())
	r := s.want(200, http.MethodGet, "/v2/target/blobs/"+someDigest+"?x=y", nil,
		"Authorization", "Basic x", "Cookie", "a=b", "Proxy-Authorization", "x", "Connection", "X-Private, Range", "X-Private", "x", "TE", "trailers", "Upgrade", "h2c",
		"X-Forwarded-For", "1.2.3.4", "Forwarded", "for=x", "X-Forwarded-Host", "evil", "Accept-Encoding", "gzip", "Expect", "100-continue", "Range", "bytes=0-1",
		"Origin", "http://x", "Referer", "http://x", "User-Agent", "me", "If-None-Match", "x", "X-Http-Method-Override", "DELETE")
	if before != 0 {
		t.Fatal("asked before it was asked")
	}
	got := origin.requests()[len(origin.requests())-1]
	var names []string
	for name := range got.Header {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"Range", "User-Agent"}; !slices.Equal(names, want) || got.Host != host || got.UserAgent() != "bob-proxy" || got.RequestURI != "/v2/app/blobs/"+someDigest {
		t.Errorf("the registry got %s %s %v", got.Host, got.RequestURI, got.Header)
	}
	names = nil
	for name := range r.header {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"Content-Length", "Date", "Docker-Content-Digest", "Etag"}; !slices.Equal(names, want) {
		t.Errorf("the client got %v", r.header)
	}
}

// TestHostHeader asks with all kinds of Host: it decides about nothing and comes
// back nowhere.
func TestHostHeader(t *testing.T) {
	t.Parallel()
	host := serve(t, images())
	s := start(t, proxy.Options{Target: host + "/app:1"})
	for _, name := range []string{"evil.example", "localhost", host, "127.0.0.1:1", ""} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.host)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "POST /v2/target/blobs/uploads/ HTTP/1.1\r\nHost: "+name+"\r\nX-Forwarded-Host: evil.example\r\nContent-Length: 0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if location := resp.Header.Get("Location"); resp.StatusCode != 202 || !strings.HasPrefix(location, "/v2/target/blobs/uploads/") {
			t.Errorf("Host %q: status %d, Location %q", name, resp.StatusCode, location)
		}
	}
}

// TestOwnAnswers asks for what the proxy knows itself.
func TestOwnAnswers(t *testing.T) {
	t.Parallel()
	s := start(t, proxy.Options{Target: "registry.invalid/app:1"})
	for _, path := range []string{"/v2/", "/v2"} {
		if r := s.want(200, http.MethodGet, path, nil); r.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
			t.Errorf("%s: %v", path, r.header)
		}
	}
	s.want(200, http.MethodHead, "/v2/", nil)
	s.want(200, http.MethodGet, "/healthz", nil)
	if r := s.want(502, http.MethodGet, "/v2/target/manifests/1", nil); r.code() != "UNKNOWN" || strings.Contains(r.body, "registry.invalid") {
		t.Error(r.body)
	}
	if r := s.want(404, http.MethodGet, "/v2/_catalog", nil); r.code() != "UNSUPPORTED" {
		t.Error(r.body)
	}
}

// FuzzRequest takes request lines of every kind: what is taken for a request to
// pass on has one spelling and stays below its repository.
func FuzzRequest(f *testing.F) {
	for _, line := range []string{
		"GET /v2/target/manifests/1", "PUT /v2/target/blobs/uploads/ABC?digest=x", "GET /v2/a/b/blobs/" + someDigest + "?ns=docker.io", "GET /v2/target/../x/manifests/1",
		"GET http://x/v2/target/manifests/1", "GET /v2/target%2fx/manifests/1", "GET //v2/target/manifests/..", "CONNECT x:1", "GET /v2/x/manifests/1?ns=[::1]:5000",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\r\nHost: x\r\n\r\n")))
		if err != nil {
			return
		}
		repo, ref, mirror, ok := proxy.Accepts(r)
		if !ok || repo == "" {
			return
		}
		for _, part := range append(strings.Split(repo, "/"), ref) {
			if (part == "" && r.Method != http.MethodPost) || part == "." || part == ".." || strings.ContainsAny(part, "/%\\?#@ \x00\r\n") {
				t.Errorf("%q is passed on about %q, %q", line, repo, ref)
			}
		}
		if mirror && r.Method != http.MethodGet && r.Method != http.MethodHead {
			t.Errorf("%q is passed on to a mirror", line)
		}
		if !strings.HasPrefix(r.RequestURI, "/v2/"+repo+"/") {
			t.Errorf("%q is taken for one about %q", line, repo)
		}
	})
}
