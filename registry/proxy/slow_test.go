package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
	"github.com/bobbuild/bob/registry/proxy"
)

// TestSlowClients has clients that send their bodies a byte at a time, or don't take
// what they asked for: they are cut off, and the proxy goes on.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", say(200))
	mux.HandleFunc("POST /v2/app/blobs/uploads/", say(202, "Location", "/u"))
	mux.HandleFunc("PATCH /u", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(202)
	})
	mux.HandleFunc("GET /v2/app/blobs/", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil { // without end
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	s := start(t, proxy.Options{Target: serve(t, mux) + "/app:1"})
	s.proxy.Hurry(300 * time.Millisecond)
	location := s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil).header.Get("Location")
	for name, head := range map[string]string{
		"layer, chunked":  "PATCH " + location + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
		"layer":           "PATCH " + location + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
		"manifest":        "PUT /v2/target/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"takes no answer": "GET /v2/target/blobs/" + someDigest + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, head); err != nil {
				t.Fatal(err)
			}
			if name == "takes no answer" {
				// Until the proxy has given it up; its log says so.
				for !strings.Contains(s.log.String(), `"about":"blob"`) {
					time.Sleep(10 * time.Millisecond)
				}
				return
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				for ctx.Err() == nil {
					drop := "x"
					if strings.Contains(head, "chunked") {
						drop = "1\r\nx\r\n"
					}
					if _, err := io.WriteString(conn, drop); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(body), "for too long") {
				t.Errorf("status %d: %s", resp.StatusCode, body)
			}
		})
	}
	s.want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil)
}

// TestEndlessAnswers has registries and token servers that answer without end, or a
// byte at a time: neither the proxy's memory nor its time goes to them.
func TestEndlessAnswers(t *testing.T) {
	t.Parallel()
	endless := func(status int, piece []byte, pause time.Duration, sent *atomic.Int64) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(status)
			for r.Context().Err() == nil {
				n, err := w.Write(piece)
				if sent.Add(int64(n)); err != nil {
					return
				}
				if pause > 0 {
					_ = http.NewResponseController(w).Flush()
					time.Sleep(pause)
				}
			}
		}
	}
	const most = 64 << 20 // what fits into buffers of sockets, and the bounds
	for name, want := range map[string]struct {
		path   string
		status int
		token  bool // it is the token server that answers so
		slowly bool
		get    int // the client's answer
	}{
		"manifest":                 {"/manifests/1", 200, false, false, 413},
		"manifest, slowly":         {"/manifests/1", 200, false, true, 408},
		"error":                    {"/manifests/1", 500, false, false, 500},
		"token server":             {"/manifests/1", 200, true, false, 502},
		"token server's refusal":   {"/manifests/1", 401, true, false, 502},
		"redirect that says a lot": {"/manifests/1", 307, false, false, 502},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			piece, pause := make([]byte, 1<<20), time.Duration(0)
			if want.slowly {
				piece, pause = []byte("x"), 5*time.Millisecond
			}
			answer := endless(want.status, piece, pause, &sent)
			mux := http.NewServeMux()
			mux.HandleFunc("/v2/", say(200))
			mux.Handle("/v2/app/manifests/1", answer)
			mux.Handle("/token", answer)
			srv := httptest.NewServer(mux)
			t.Cleanup(srv.CloseClientConnections)
			if want.token {
				mux.HandleFunc("/v2/{$}", say(401, "WWW-Authenticate", `Bearer realm="`+srv.URL+`/token",service="x"`))
			}
			s := start(t, proxy.Options{Target: strings.TrimPrefix(srv.URL, "http://") + "/app:1"})
			if want.slowly {
				s.proxy.Hurry(300 * time.Millisecond)
			}
			s.want(want.get, http.MethodGet, "/v2/target"+want.path, nil)
			if n := sent.Load(); n > most {
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}

// TestHeadersWithoutEnd has a registry whose headers have no end.
func TestHeadersWithoutEnd(t *testing.T) {
	t.Parallel()
	s := start(t, proxy.Options{Target: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			for i := range 1000 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
			}
		}
	})) + "/app:1"})
	s.want(502, http.MethodGet, "/v2/target/manifests/1", nil)
}

// TestOutage has the registry refuse connections for a time: what can be made again is,
// for base and target and for no mirror.
func TestOutage(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/", say(200))
	mux.HandleFunc("POST /v2/app/blobs/uploads/", say(202, "Location", "/u"))
	mux.HandleFunc("PATCH /u", func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); string(body) != "layer" {
			w.WriteHeader(400)
			return
		}
		w.WriteHeader(202)
	})
	mux.HandleFunc("PUT /u", say(201))
	host := serve(t, mux)
	for _, takes := range []time.Duration{30 * time.Second, time.Hour} {
		clock := new(patiencetest.Clock)
		s := start(t, proxy.Options{Target: host + "/app:1", Patience: patience.Policy{Clock: clock}})
		var until atomic.Int64
		s.proxy.Dial(func(ctx context.Context, network, address string) (net.Conn, error) {
			if int64(clock.Passed()) < until.Load() {
				return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		})
		down := func() { until.Store(int64(clock.Passed() + takes)) }
		status := map[time.Duration]int{30 * time.Second: 0, time.Hour: 502}[takes]
		want := func(usual int, method, path string, body io.Reader) reply {
			t.Helper()
			if status != 0 {
				usual = status
			}
			down()
			return s.want(usual, method, path, body)
		}
		location := want(202, http.MethodPost, "/v2/target/blobs/uploads/", nil).header.Get("Location")
		want(200, http.MethodGet, "/v2/target/manifests/1", nil)
		want(200, http.MethodHead, "/v2/target/blobs/"+someDigest, nil)
		want(201, http.MethodPut, "/v2/target/manifests/1", strings.NewReader("{}"))
		if location != "" {
			want(202, http.MethodPatch, location, strings.NewReader("layer"))
			want(201, http.MethodPut, location+"?digest="+someDigest, nil)
		}
		before := clock.Passed()
		s.want(502, http.MethodGet, "/v2/app/manifests/1?ns="+host, nil)
		if clock.Passed() != before {
			t.Error("a mirror was waited for")
		}
	}
}

// TestTokensElsewhere has a registry whose token server, or what that redirects to, is
// another host: the login goes to the token server that the registry names, and to
// nobody else.
func TestTokensElsewhere(t *testing.T) {
	t.Parallel()
	for _, identity := range []bool{false, true} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			thief := &spy{inner: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"token":"s3cr3t-t0ken"}`) })}
			thiefHost := serve(t, thief)
			realm := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://"+thiefHost+"/token?"+r.URL.RawQuery, status)
			}))
			host := serve(t, say(401, "WWW-Authenticate", `Bearer realm="http://`+realm+`/token",service="x"`))
			auth := dockerConfig(t, host, user, password)
			if identity {
				auth = parseConfig(t, fmt.Sprintf(`{"auths":{%q:{"identitytoken":%q}}}`, host, password))
			}
			s := start(t, proxy.Options{Target: host + "/app:1", Auth: auth})
			s.ask(http.MethodGet, "/v2/target/manifests/1", nil)
			for _, r := range thief.requests() {
				body, _ := io.ReadAll(r.Body)
				if r.Header.Get("Authorization") != "" || strings.Contains(string(body)+r.RequestURI, password) || r.Method != http.MethodGet {
					t.Errorf("%d, identity token %t: another host got %s %s %v %s", status, identity, r.Method, r.RequestURI, r.Header, body)
				}
			}
			if slices.Contains([]int{307, 308}, status) && identity && len(thief.requests()) > 0 {
				t.Errorf("%d: another host was asked for a login", status)
			}
		}
	}
}
