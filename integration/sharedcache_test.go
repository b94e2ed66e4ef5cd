package integration_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// traffic is a registry that remembers what it was asked.
type traffic struct {
	http.Handler

	mu   sync.Mutex
	seen []string // method and URL
}

func (f *traffic) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.seen = append(f.seen, r.Method+" "+r.URL.String())
	f.mu.Unlock()
	f.Handler.ServeHTTP(w, r)
}

// taken returns what was asked since the last call and matches the pattern.
func (f *traffic) taken(pattern string) (found []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.seen {
		if regexp.MustCompile(pattern).MatchString(s) {
			found = append(found, s)
		}
	}
	f.seen = nil
	return found
}

const sharedStages = `ARG REGISTRY
FROM ${REGISTRY}/busybox AS build
COPY src /src
RUN cp /src/file /out && chown 1000:50 /out && mkdir /gone
FROM ${REGISTRY}/busybox
WORKDIR /app
COPY --from=build /out /app/
RUN rm /bin/vi && echo made > /made
`

// TestSharedCache builds on one machine, and on others that have nothing but the
// registry.
func TestSharedCache(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	f := &traffic{Handler: front(t, b.registry)}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	path := strings.TrimPrefix(b.registry.Prefix, b.registry.Host)
	repo := host + strings.TrimPrefix(strings.TrimSuffix(b.ref, ":1"), b.registry.Host)
	b.write(map[string]string{"context/Dockerfile": sharedStages, "context/src/file": "content\n"})
	build := func(machine string, args ...string) (digest, log string) {
		t.Helper()
		args = append([]string{"build", "--progress=plain", "--build-arg=REGISTRY=" + host + path}, args...)
		r := b.run(harness.Invocation{Args: append(args, "context"), Cache: b.dir + "/" + machine})
		if r.Code != 0 {
			t.Fatalf("bob %s: exit code %d\n%s", strings.Join(args, " "), r.Code, r.Stderr)
		}
		return r.Stdout, r.Stderr
	}
	cached := func(log string) int { return strings.Count(log, " CACHED") }

	first, _ := build("a", "-t", repo+"-one:1", "--cache-to=type=registry,mode=max,ref="+repo+"-cache:1")
	if sent := f.taken(`^(PATCH|PUT) .*-cache/(blobs|manifests)`); len(sent) == 0 {
		t.Error("no cache was sent")
	}

	// Elsewhere nothing is run and no layer comes; those of the cache are mounted.
	second, log := build("b", "-t", repo+"-two:1", "--cache-from="+repo+"-cache:1")
	if second != first || cached(log) != 5 {
		t.Errorf("digest %s, before %s; %d steps were cached\n%s", second, first, cached(log), log)
	}
	f.mu.Lock()
	seen := strings.Join(f.seen, "\n")
	f.mu.Unlock()
	mounted := regexp.MustCompile(`POST .*-two/blobs/uploads/\?.*from=\S*-cache`).FindAllString(seen, -1)
	came := regexp.MustCompile(`GET \S*/blobs/`).FindAllString(seen, -1)
	streamed := regexp.MustCompile(`PATCH `).FindAllString(seen, -1)
	asked := f.taken(`-cache/`)
	if len(mounted) != 3 || len(came) != 2 || len(streamed) > 1 || len(asked) > 4 {
		t.Errorf("%d layers mounted, %d blobs came, %d went, asked for the cache: %q\n%s", len(mounted), len(came), len(streamed), asked, seen)
	}

	// A missing cache is told of once, and one step more has the layers fetched.
	b.write(map[string]string{"context/Dockerfile": sharedStages + "RUN test $(stat -c %u:%g /app/out) = 1000:50 && ! test -e /bin/vi\n"})
	_, log = build("b", "-t", repo+"-two:2", "--cache-from="+repo+"-none:1", "--cache-from="+repo+"-cache:1", "--cache-to=type=inline")
	if cached(log) != 5 || strings.Count(log, "goes on without it") != 1 {
		t.Errorf("%d steps were cached\n%s", cached(log), log)
	}
	third, _ := build("b", "-t", repo+"-two:2", "--cache-to=type=inline")

	// The image is a cache itself, of its own stage.
	fourth, log := build("c", "-t", repo+"-two:3", "--cache-from="+repo+"-two:2", "--cache-to=type=inline")
	if fourth != third || cached(log) != 4 {
		t.Errorf("digest %s, before %s; %d steps were cached\n%s", fourth, third, cached(log), log)
	}

	// Another user, whose IDs are other ones on this machine.
	if os.Geteuid() == 0 {
		bob, err := lab.Bob()
		check(t, err)
		cmd := exec.CommandContext(t.Context(), bob, "build", "--progress=plain", "--build-arg=REGISTRY="+host+path,
			"--cache-from="+repo+"-cache:1", "--cache-dir="+t.TempDir(), b.dir+"/context")
		cmd.Env = append(os.Environ(), lab.NoAuth(), "BOB_CACHE_SYNC=false")
		out, err := cmd.CombinedOutput()
		if err != nil || cached(string(out)) != 5 {
			t.Errorf("as root: %v, %d steps were cached\n%s", err, cached(string(out)), out)
		}
	}
}
