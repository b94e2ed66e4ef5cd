package fetch_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
)

// lostFor fails all requests that come before a time, and answers the others.
type lostFor struct {
	clock *patiencetest.Clock
	until time.Duration
	fail  func(*http.Request) (*http.Response, error)
}

func (l lostFor) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.clock.Passed() < l.until {
		return l.fail(r)
	}
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("content")), ContentLength: 7, Request: r}, nil
}

func TestDownloadOutage(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*http.Request) (*http.Response, error){
		"refused": func(*http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		},
		"503": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 503, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
		},
		"broken body": func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(io.MultiReader(strings.NewReader("con"), broken{})), Request: r}, nil
		},
	} {
		for until, survived := range map[time.Duration]bool{30 * time.Second: true, time.Hour: false} {
			clock, notices := new(patiencetest.Clock), 0
			c := fetch.New(fetch.Options{
				Transport: lostFor{clock, until, fail}, Patience: patience.Policy{Clock: clock},
				Notice: func(s string) {
					if notices++; !strings.Contains(s, "download http://host/f: ") || !strings.Contains(s, "; trying again in ") {
						t.Errorf("notice %q", s)
					}
				},
			})
			dir := t.TempDir()
			_, err := c.Download(t.Context(), fetch.File{URL: "http://host/f", Name: "f"}, nil, func() (string, error) { return dir, nil }, nil)
			if (err == nil) != survived || notices == 0 {
				t.Errorf("%s for %s: %v, %d notices", name, until, err, notices)
			}
			if survived && read(t, dir, "f") != "content" {
				t.Errorf("%s: other content", name)
			}
			if passed := clock.Passed(); passed > time.Minute || !survived && !strings.Contains(err.Error(), "http://host/f") {
				t.Errorf("%s: %v after %s", name, err, passed)
			}
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, syscall.ECONNRESET }

// TestForGood checks that what no waiting mends is told at once.
func TestForGood(t *testing.T) {
	t.Parallel()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(secure.Close)
	secure.Config.ErrorLog = nil
	for _, address := range []string{secure.URL + "/f", "http://nowhere.invalid/f", "http://" + secure.Listener.Addr().String() + "/f"} {
		notices := 0
		c := fetch.New(fetch.Options{Patience: patience.Policy{Clock: new(patiencetest.Clock)}, Notice: func(string) { notices++ }})
		_, err := c.Download(t.Context(), fetch.File{URL: address, Name: "f"}, nil, func() (string, error) { return t.TempDir(), nil }, nil)
		if err == nil || notices > 0 && !strings.Contains(address, "nowhere") {
			t.Errorf("%s: %v, %d notices", address, err, notices)
		}
	}
}

// TestSilentServers has servers that stop answering, wherever they may.
func TestSilentServers(t *testing.T) {
	t.Parallel()
	hub := newHub(t)
	hub.create("r", map[string]string{"a": "a"})
	backend, err := url.Parse(hub.url)
	if err != nil {
		t.Fatal(err)
	}
	honest := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(backend) }}
	hang := func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}
	begin := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", r.URL.Query().Get("type"))
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
			hang(w, r)
		}
	}
	silent := map[string]http.HandlerFunc{
		"file, no answer": hang,
		"file, in the middle": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			begin("content")(w, r)
		},
		"git, no list": hang,
		"git, half a list": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			begin("001e# service=git-upload-pack\n0000004")(w, r)
		},
		"git, no pack": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				hang(w, r)
				return
			}
			honest.ServeHTTP(w, r)
		},
		"git, half a pack": func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
				begin("0008NAK\n0010\x01PACK\x00\x00\x00\x02\x00\x00\x00")(w, r)
				return
			}
			honest.ServeHTTP(w, r)
		},
	}
	for name, handler := range silent {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(handler)
			t.Cleanup(srv.CloseClientConnections)
			_ = silentAddress(t, srv.URL, strings.HasPrefix(name, "git"))
		})
	}
	t.Run("file, redirected", func(t *testing.T) {
		t.Parallel()
		guilty := httptest.NewServer(http.HandlerFunc(hang))
		t.Cleanup(guilty.CloseClientConnections)
		srv := httptest.NewServer(http.RedirectHandler(guilty.URL+"/f", http.StatusFound))
		t.Cleanup(srv.CloseClientConnections)
		if err := silentAddress(t, srv.URL, false); !strings.Contains(err.Error(), "GET to "+guilty.Listener.Addr().String()+" stalled: ") {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("git protocol", func(t *testing.T) {
		t.Parallel()
		_ = silentAddress(t, "git://"+listenSilently(t), true)
	})
	t.Run("ssh", func(t *testing.T) {
		t.Parallel()
		_ = silentAddress(t, "ssh://"+listenSilently(t), true)
	})
}

// silentAddress fetches from an address and wants an error that names it and says for
// how long nothing came.
func silentAddress(t *testing.T, address string, git bool) error {
	t.Helper()
	known := filepath.Join(t.TempDir(), "known_hosts")
	err := os.WriteFile(known, []byte("x ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8YPSgfNPZ1ZWoxD5+iVzI7eKHVrTn5c+GgHjwJ9c6d\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	c := fetch.New(fetch.Options{
		IdleTimeout: 200 * time.Millisecond, Patience: patience.Policy{Limit: -1}, TempDir: t.TempDir(), KnownHosts: []string{known},
		Agent: func(context.Context) (net.Conn, error) { return nil, errors.New("no agent") },
	})
	if git {
		r := fetch.Repository{Remote: address + "/r/.git", Ref: "main"}
		var at *fetch.Commit
		if at, err = c.Resolve(t.Context(), r); err == nil {
			err = c.Checkout(t.Context(), r, at, t.TempDir())
		}
	} else {
		_, err = c.Download(t.Context(), fetch.File{URL: address + "/f", Name: "f"}, nil, func() (string, error) { return t.TempDir(), nil }, nil)
	}
	if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), " stalled: no byte moved for ") {
		t.Fatalf("the error is %v", err)
	}
	return err
}

// listenSilently accepts connections and says nothing.
func listenSilently(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
		}
	}()
	return l.Addr().String()
}

// TestGitOutage has a git server that fails some times before it answers.
func TestGitOutage(t *testing.T) {
	t.Parallel()
	hub := newHub(t)
	hash := hub.create("r", map[string]string{"a": "content"})
	backend, err := url.Parse(hub.url)
	if err != nil {
		t.Fatal(err)
	}
	honest := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(backend) }}
	for name, fail := range map[string]http.HandlerFunc{
		"503":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"hung up": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"half way": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "001e# serv")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		},
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			var count atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == method && count.Add(1) <= 3 {
					fail(w, r)
					return
				}
				honest.ServeHTTP(w, r)
			}))
			t.Cleanup(srv.Close)
			for _, ref := range []string{"main", hash} {
				count.Store(0)
				dir, err := checkout(t, fetch.Repository{Remote: srv.URL + "/r/.git", Ref: ref})
				if err != nil || read(t, dir, "a") != "content" {
					t.Errorf("%s to %s of %s: %v", name, method, ref, err)
				}
			}
		}
	}
}
