package executor_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
)

// everything is a Dockerfile with each kind of step and of place that one takes files
// from.
const everything = `FROM HOST/base AS one
WORKDIR /work
COPY a /
RUN x=1
FROM HOST/unpacked AS unchanged
FROM scratch
COPY --from=HOST/other /o /
COPY --from=unchanged /u /
COPY --from=one --link /x /y
COPY <<E /heredoc
text
E
COPY --from=dir f* /
ADD WEB/download /
RUN --mount=target=/m,source=a --mount=from=one,target=/n --mount=from=unchanged,source=/u,target=/u mounted=1
RUN --mount=type=cache,target=/c,from=HOST/other,source=/o cached=1
LABEL l=1
`

// A requestLog keeps what a registry was asked.
type requestLog struct {
	mu   sync.Mutex
	seen []string // method and path
}

func (l *requestLog) note(r *http.Request) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = append(l.seen, r.Method+" "+r.URL.Path)
	return 0
}

// taken returns what was asked since the last call.
func (l *requestLog) taken() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	l.seen = nil
	return seen
}

// watchStore gives the directories of the store, in which each snapshot, blob and
// mount under way has its entry, an old time, and returns a function that returns those
// that have been written to since.
func (k *kit) watchStore() func() []string {
	k.t.Helper()
	var dirs []string
	old := time.Unix(1e9, 0)
	for _, pattern := range []string{"blobs/*", "ids/*/active", "ids/*/snapshots"} {
		found, err := filepath.Glob(filepath.Join(k.store, pattern))
		if err != nil || len(found) == 0 {
			k.t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		if err := os.Chtimes(dir, old, old); err != nil {
			k.t.Fatal(err)
		}
	}
	return func() []string {
		return slices.DeleteFunc(slices.Clone(dirs), func(dir string) bool {
			fi, err := os.Stat(dir)
			return err == nil && fi.ModTime().Equal(old)
		})
	}
}

// forget removes the snapshots that hold one of the files.
func (k *kit) forget(files ...string) {
	k.t.Helper()
	for _, file := range files {
		found, err := filepath.Glob(filepath.Join(k.store, "ids", "*", "snapshots", "*", "fs", file))
		if err != nil || len(found) == 0 {
			k.t.Fatalf("%s: %q, %v", file, found, err)
		}
		for _, name := range found {
			if err := os.RemoveAll(filepath.Dir(filepath.Dir(name))); err != nil {
				k.t.Fatal(err)
			}
		}
	}
}

// A build of which every step is known asks for manifests and configs, pushes a
// manifest, and neither makes nor moves anything else. It needs no file of an image
// that nothing is laid over, which may be gone from the store.
func TestAllIsKnown(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	asked := &requestLog{}
	k.requests = asked.note
	configs := map[string]bool{}
	for _, repo := range []string{"base", "unpacked", "other"} {
		k.base(repo, map[string]string{repo: repo, "u": "u", "o": "o"})
		img, _ := k.pull(k.host + "/" + repo + ":latest")
		d, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		configs["GET /v2/"+repo+"/blobs/"+d.String()] = true
	}
	dir, named, www := t.TempDir(), t.TempDir(), t.TempDir()
	writeTree(t, dir, map[string]string{"a": "1"})
	writeTree(t, named, map[string]string{"f1": "1", "f2": "2"})
	writeTree(t, www, map[string]string{"download": "d"})
	web := httptest.NewServer(http.FileServer(http.Dir(www)))
	t.Cleanup(web.Close)
	text := strings.ReplaceAll(everything, "WEB", web.URL)
	o := executor.Options{
		Context: dir, Contexts: map[string]executor.Context{"dir": {Dir: named}},
		Tags: []string{k.host + "/app:1", k.host + "/copy:1"},
	}
	p := dockerfile.Options{Contexts: map[string]dockerfile.Context{"dir": {}}}
	first := k.mustBuildWith(text, o, p)
	for _, gone := range []bool{false, true} {
		k.reopen()
		if gone {
			k.forget("unpacked", "other")
		}
		k.taken()
		asked.taken()
		written := k.watchStore()
		again := k.mustBuildWith(text, o, p)
		if ran := k.taken(); len(ran) > 0 {
			t.Fatalf("ran %q", ran)
		}
		if again.Manifest.Digest != first.Manifest.Digest {
			t.Errorf("made %s, before %s", again.Manifest.Digest, first.Manifest.Digest)
		}
		if dirs := written(); len(dirs) > 0 {
			t.Errorf("with images gone %t: written to %q", gone, dirs)
		}
		puts := map[string]int{}
		for _, r := range asked.taken() {
			method, path, _ := strings.Cut(r, " ")
			switch {
			case method == http.MethodPut && strings.Contains(path, "/manifests/"):
				puts[path]++
			case method == http.MethodHead, configs[r], path == "/v2/":
			case method == http.MethodGet && strings.Contains(path, "/manifests/"):
			case method == http.MethodPost: // whether pushing is allowed
				puts[path]++
			default:
				t.Errorf("with images gone %t: %s", gone, r)
			}
		}
		want := map[string]int{
			"/v2/app/manifests/1": 1, "/v2/copy/manifests/1": 1,
			"/v2/app/blobs/uploads/": 1, "/v2/copy/blobs/uploads/": 1,
		}
		if !maps.Equal(puts, want) {
			t.Errorf("with images gone %t: sent %v, want %v", gone, puts, want)
		}
	}
}
