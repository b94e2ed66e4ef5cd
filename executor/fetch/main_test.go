package fetch_test

import (
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
)

// backend is git's own server for HTTP.
const backend = "/usr/lib/git-core/git-http-backend"

// A hub serves git repositories over loopback HTTP.
type hub struct {
	t   *testing.T
	dir string
	url string
}

func newHub(t *testing.T) *hub {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	if _, err := os.Stat(backend); err != nil {
		t.Skip("git http-backend is not installed")
	}
	h := &hub{t: t, dir: t.TempDir()}
	srv := httptest.NewServer(&cgi.Handler{
		Path: backend,
		Env:  []string{"GIT_PROJECT_ROOT=" + h.dir, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + h.dir, "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	})
	t.Cleanup(srv.Close)
	h.url = srv.URL
	return h
}

// git runs git in the repository name and returns what it prints.
func (h *hub) git(name string, args ...string) string {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), "git", args...)
	cmd.Dir = filepath.Join(h.dir, name)
	cmd.Env = append(os.Environ(), "HOME="+h.dir, "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_AUTHOR_DATE=2001-02-03T04:05:06Z", "GIT_COMMITTER_DATE=2001-02-03T04:05:06Z", "GIT_ALLOW_PROTOCOL=file:http")
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// create makes the repository name with a commit of files and returns its hash.
func (h *hub) create(name string, files map[string]string) string {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Join(h.dir, name), 0o755); err != nil {
		h.t.Fatal(err)
	}
	h.git(name, "-c", "init.defaultBranch=main", "init", "-q")
	return h.commit(name, files)
}

func (h *hub) commit(name string, files map[string]string) string {
	h.t.Helper()
	for file, content := range files {
		p := filepath.Join(h.dir, name, file)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
	h.git(name, "add", "-A")
	h.git(name, "commit", "-q", "-m", "work")
	return h.git(name, "rev-parse", "HEAD")
}

// remote returns the address of the repository name.
func (h *hub) remote(name string) string { return h.url + "/" + name + "/.git" }

func newClient(t *testing.T) *fetch.Client {
	t.Helper()
	return fetch.New(fetch.Options{Patience: patience.Policy{Clock: new(patiencetest.Clock)}, TempDir: t.TempDir()})
}

// checkout fetches r and returns the directory it is in.
func checkout(t *testing.T, r fetch.Repository) (string, error) {
	t.Helper()
	c := newClient(t)
	at, err := c.Resolve(t.Context(), r)
	if err != nil {
		return "", err
	}
	dir := t.TempDir()
	return dir, c.Checkout(t.Context(), r, at, dir)
}

func mustCheckout(t *testing.T, r fetch.Repository) string {
	t.Helper()
	dir, err := checkout(t, r)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err.Error()
	}
	return string(b)
}
