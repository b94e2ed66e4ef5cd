package fetch_test

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor/fetch"
	"github.com/opencontainers/go-digest"
)

const modified = "Sat, 03 Feb 2001 04:05:06 GMT"

// download fetches f into a new directory and returns that.
func download(t *testing.T, f fetch.File, known *fetch.Version) (string, *fetch.Version, error) {
	t.Helper()
	dir := t.TempDir()
	v, err := newClient(t).Download(t.Context(), f, known, func() (string, error) { return dir, nil }, nil)
	return dir, v, err
}

func TestDownload(t *testing.T) {
	t.Parallel()
	var flaky atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/dated", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", modified)
		fmt.Fprint(w, "content")
	})
	mux.HandleFunc("/plain", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "content"+r.URL.RawQuery) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/dated", http.StatusFound) })
	mux.HandleFunc("/flaky", func(w http.ResponseWriter, _ *http.Request) {
		switch flaky.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.Header().Set("Content-Length", "7")
			fmt.Fprint(w, "con")
		default:
			fmt.Fprint(w, "content")
		}
	})
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		fmt.Fprint(z, "content")
		_ = z.Close()
	})
	mux.HandleFunc("/guarded", func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "hidden" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "content")
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	withUser := func(password string) string { return strings.Replace(srv.URL, "://", "://me:"+password+"@", 1) }
	right, wrong := digest.FromString("content"), digest.FromString("other")

	tests := []struct {
		name, url string
		checksum  digest.Digest
		want      string // content, or part of the error
	}{
		{"dated", srv.URL + "/dated", "", "content"},
		{"query", srv.URL + "/plain?a=b&c=%20", "", "contenta=b&c=%20"},
		{"redirect", srv.URL + "/moved", "", "content"},
		{"checksum", srv.URL + "/plain", right, "content"},
		{"another algorithm", srv.URL + "/plain", digest.SHA512.FromString("content"), "content"},
		{"wrong checksum", srv.URL + "/plain", wrong, "digest mismatch: what was received is " + right.String() + ", expected was " + wrong.String()},
		{"not found", srv.URL + "/nowhere", "", srv.URL + "/nowhere: the server answered 404 Not Found"},
		{"transient", srv.URL + "/flaky", "", "content"},
		{"credentials", withUser("hidden") + "/guarded", "", "content"},
		{"wrong credentials", withUser("topsecret") + "/guarded", "", srv.URL + "/guarded: the server answered 401"},
		{"no such host", "http://me:topsecret@nowhere.invalid/", "", "download http://nowhere.invalid/"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, v, err := download(t, fetch.File{URL: tt.url, Name: "f", Checksum: tt.checksum}, nil)
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got error %q, want %q", err, tt.want)
				}
				if strings.Contains(err.Error(), "topsecret") {
					t.Errorf("the error shows the password: %v", err)
				}
				if _, err := os.Stat(filepath.Join(dir, "f")); !errors.Is(err, fs.ErrNotExist) {
					t.Error("a file was kept")
				}
				return
			}
			if got := read(t, dir, "f"); got != tt.want || v.Digest != digest.FromString(tt.want) {
				t.Errorf("got %q (%s), want %q", got, v.Digest, tt.want)
			}
			fi, err := os.Stat(filepath.Join(dir, "f"))
			if err != nil {
				t.Fatal(err)
			}
			if fi.Mode() != 0o600 || !fi.ModTime().Equal(v.Time()) {
				t.Errorf("mode %v, time %v, want 0600 and %v", fi.Mode(), fi.ModTime(), v.Time())
			}
		})
	}
	t.Run("encoded body", func(t *testing.T) {
		t.Parallel()
		dir, _, err := download(t, fetch.File{URL: srv.URL + "/gzip", Name: "f"}, nil)
		if got := read(t, dir, "f"); err != nil || !strings.HasPrefix(got, "\x1f\x8b") {
			t.Errorf("got %q, %v, want the bytes as sent", got, err)
		}
	})
}

// TestValidators protects what is known from being sent again.
func TestValidators(t *testing.T) {
	t.Parallel()
	var sent atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/tagged", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `W/"1"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("content"))
		sent.Add(1)
	})
	mux.HandleFunc("/deaf", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"1"`)
		fmt.Fprint(w, "content")
	})
	mux.HandleFunc("/dated", func(w http.ResponseWriter, r *http.Request) {
		at, _ := http.ParseTime(modified)
		http.ServeContent(w, r, "", at, strings.NewReader("content"))
	})
	mux.HandleFunc("/changing", func(w http.ResponseWriter, _ *http.Request) {
		n := sent.Add(1)
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, n))
		fmt.Fprintf(w, "content %d", n)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	for path, again := range map[string]bool{"/tagged": false, "/deaf": false, "/dated": false, "/changing": true} {
		f := fetch.File{URL: srv.URL + path, Name: "f"}
		_, known, err := download(t, f, nil)
		if err != nil {
			t.Fatal(err)
		}
		dir, v, err := download(t, f, known)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "f")); (err == nil) != again || (v != known) != again {
			t.Errorf("%s: fetched again: %v, want %v", path, err == nil, again)
		}
	}
}
