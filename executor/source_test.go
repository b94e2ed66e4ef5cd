package executor_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/image"
)

// buildIn builds text with named contexts into a directory and returns that.
func buildIn(t *testing.T, k *kit, text string, contexts map[string]executor.Context) (string, error) {
	t.Helper()
	f, err := dockerfile.Parse("Dockerfile", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]dockerfile.Context)
	for name := range contexts {
		named[name] = dockerfile.Context{}
	}
	plan, err := f.Plan(dockerfile.Options{TargetPlatform: linuxAMD64, BuildPlatform: linuxAMD64, Contexts: named})
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	_, err = k.builder.Build(t.Context(), []*dockerfile.Plan{plan}, executor.Options{
		Contexts: contexts, Outputs: []image.Output{{Type: image.OutputLocal, Dest: out}},
	})
	return out, err
}

// TestAddURL protects a file that is known from being fetched again, and a build
// from going on without one (a 404 is an error).
func TestAddURL(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	var sent atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/a[b]*.txt" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		sent.Add(1)
		_, _ = w.Write([]byte("content " + r.URL.RawQuery))
	}))
	t.Cleanup(srv.Close)
	for range 2 {
		dir, err := buildIn(t, k, "FROM scratch\nADD "+srv.URL+"/a%5Bb%5D*.txt?x=1 /d/\n", nil)
		if err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob(filepath.Join(dir, "d", "*"))
		if err != nil || len(names) != 1 {
			t.Fatalf("got files %q, %v", names, err)
		}
		if b, err := os.ReadFile(names[0]); string(b) != "content x=1" || filepath.Base(names[0]) != "a[b]*.txt" {
			t.Errorf("%s holds %q, %v", names[0], b, err)
		}
		k.reopen()
	}
	if n := sent.Load(); n != 1 {
		t.Errorf("the file was sent %d times", n)
	}
	if _, err := buildIn(t, k, "FROM scratch\nADD "+srv.URL+"/none /\n", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a missing file gave error %v", err)
	}
	k.clean()
}

func TestNamedContexts(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	dir := t.TempDir()
	for name, content := range map[string]string{"kept": "1", "ignored": "2"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("url")) }))
	t.Cleanup(srv.Close)
	contexts := map[string]executor.Context{
		"dir": {Dir: dir, Ignore: []string{"ignored"}},
		"url": {URL: srv.URL},
	}
	out, err := buildIn(t, k, "FROM dir AS d\nFROM url AS u\nFROM scratch\nCOPY --from=d / /base/\nCOPY --from=u / /url-base/\nCOPY --from=dir / /dir/\nCOPY --from=url context /url\n", contexts)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"base/kept": "1", "dir/kept": "1", "url": "url", "url-base/context": "url"} {
		if b, err := os.ReadFile(filepath.Join(out, name)); string(b) != want {
			t.Errorf("%s holds %q, %v", name, b, err)
		}
	}
	for _, name := range []string{"base/ignored", "dir/ignored"} {
		if _, err := os.Lstat(filepath.Join(out, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	k.clean()
}

// TestTime checks what SOURCE_DATE_EPOCH takes from a file.
func TestTime(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	stamp, newest := time.Unix(1_500_000_000, 0), time.Unix(1_400_000_000, 0)
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for name, at := range map[string]time.Time{"old": time.Unix(1, 0), "new": newest} {
		if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, ModTime: at}); err != nil {
			t.Fatal(err)
		}
	}
	// The time of what is no regular file doesn't count.
	if err := errors.Join(tw.WriteHeader(&tar.Header{Name: "d/", Typeflag: tar.TypeDir, ModTime: stamp}), tw.Close()); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/dated":
			w.Header().Set("Last-Modified", stamp.UTC().Format(http.TimeFormat))
			fallthrough
		case "/archive":
			_, _ = w.Write(archive.Bytes())
		default:
			_, _ = w.Write([]byte("text"))
		}
	}))
	t.Cleanup(srv.Close)
	for path, want := range map[string]time.Time{"/dated": stamp, "/archive": newest, "/text": {}} {
		got, err := k.builder.Time(t.Context(), &dockerfile.Download{URL: srv.URL + path, Name: "file"})
		if err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", path, got, err, want)
		}
	}
}
