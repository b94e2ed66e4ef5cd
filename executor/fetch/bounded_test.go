package fetch_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bobbuild/bob/executor/fetch"
)

// TestRepositoriesAreBounded fetches a repository of a few objects whose tree has 10^9
// files, and one that is itself too large.
func TestRepositoriesAreBounded(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.create("tree", map[string]string{"file": strings.Repeat("x", 1000)})
	mode, object := "100644 blob", h.git("tree", "rev-parse", "HEAD:file")
	for range 9 {
		var tree strings.Builder
		for name := range 10 {
			fmt.Fprintf(&tree, "%s %s\tn%d\n", mode, object, name)
		}
		mode, object = "040000 tree", pipe(t, h, "tree", tree.String(), "mktree")
	}
	h.git("tree", "update-ref", "refs/heads/main", h.git("tree", "commit-tree", "-m", "bomb", object))
	random := make([]byte, 1<<20)
	f, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, random); err != nil {
		t.Fatal(err)
	}
	h.create("pack", map[string]string{"below/file": string(random)})
	h.create("small", map[string]string{"file": "x"})
	c := fetch.New(fetch.Options{TempDir: t.TempDir(), MaxSize: 200_000})
	for name, want := range map[string]string{"tree": "more than the 195.3 KiB", "pack": "more than the 195.3 KiB", "small": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := fetch.Repository{Remote: h.remote(name)}
			at, err := c.Resolve(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			err = c.Checkout(t.Context(), r, at, t.TempDir())
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// TestDownloadsAreBounded: a file that is too large is refused at once if the server
// says so, and else when there is too much of it, and isn't asked for again.
func TestDownloadsAreBounded(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if size := r.URL.Query().Get("size"); size != "" {
			w.Header().Set("Content-Length", size)
		}
		chunk := make([]byte, 100)
		for range 1000 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	t.Cleanup(srv.Close)
	c := fetch.New(fetch.Options{MaxSize: 1000})
	for _, size := range []string{"", "100000", strconv.Itoa(1 << 60)} {
		asked.Store(0)
		dir := t.TempDir()
		f := fetch.File{URL: srv.URL + "/x?size=" + size, Name: "x"}
		_, err := c.Download(t.Context(), f, nil, func() (string, error) { return dir, nil }, nil)
		if err == nil || !strings.Contains(err.Error(), "more than the 1000 bytes that --max-unpacked-size allows") || asked.Load() != 1 {
			t.Errorf("size %q: got %v, asked %d times", size, err, asked.Load())
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("size %q: %v is left, %v", size, files, err)
		}
	}
	f := fetch.File{URL: srv.URL + "/x", Name: "x"}
	dir := t.TempDir()
	if _, err := newClient(t).Download(t.Context(), f, nil, func() (string, error) { return dir, nil }, nil); err != nil {
		t.Error(err)
	}
}
