package harness

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"time"
)

// GitEnv makes git read no configuration of this machine, and gives commits the
// same hashes everywhere.
var GitEnv = []string{
	"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
	"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=init.defaultBranch", "GIT_CONFIG_VALUE_0=main",
	"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*", // the user's repositories, read by root
	"GIT_AUTHOR_NAME=tester", "GIT_AUTHOR_EMAIL=tester@example.org", "GIT_AUTHOR_DATE=2001-02-03T04:05:06Z",
	"GIT_COMMITTER_NAME=tester", "GIT_COMMITTER_EMAIL=tester@example.org", "GIT_COMMITTER_DATE=2001-02-03T04:05:06Z",
}

// A Site is a directory served by plain HTTP on loopback. Git repositories in it,
// directories whose names end in .git, are served by git's own smart server; a path
// that ends in a slash is the file index there. What is asked for may say how it is
// answered:
//
//	/moved/PATH     redirects to /PATH
//	/private/PATH   is /PATH for those who know GuardedPassword, as a bearer
//	                token or as the password of any user
//	?name=N         with the file name N in Content-Disposition
//	?untagged       without ETag
//	?untimed        without Last-Modified
//
// It is safe for concurrent use.
type Site struct {
	URL string // without a slash at the end

	dir    string
	server *httptest.Server
	mu     sync.Mutex
	served map[string]int // answers, by status and path
}

// Serve serves dir, which need not exist yet. The caller closes the site.
func Serve(dir string) *Site {
	s := &Site{dir: dir, served: map[string]int{}}
	s.server = httptest.NewServer(s)
	s.URL = s.server.URL
	return s
}

// Close stops the server once all requests are answered.
func (s *Site) Close() { s.server.Close() }

// Served says how often a path, as it was asked for and without its query, was
// answered with status.
func (s *Site) Served(status int, path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served[fmt.Sprint(status, " ", path)]
}

// ServeHTTP answers a request.
func (s *Site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.answer(&notingWriter{w, s, r.URL.Path}, r, r.URL.Path)
}

// A notingWriter counts an answer before it is sent.
type notingWriter struct {
	http.ResponseWriter

	site *Site
	path string
}

func (w *notingWriter) WriteHeader(status int) {
	w.site.mu.Lock()
	w.site.served[fmt.Sprint(status, " ", w.path)]++
	w.site.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

func (s *Site) answer(w http.ResponseWriter, r *http.Request, name string) {
	if rest, ok := strings.CutPrefix(name, "/moved/"); ok {
		http.Redirect(w, r, "/"+rest, http.StatusFound)
		return
	}
	if rest, ok := strings.CutPrefix(name, "/private/"); ok {
		if _, password, _ := r.BasicAuth(); password != GuardedPassword && r.Header.Get("Authorization") != "Bearer "+GuardedPassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		name = "/" + rest
	}
	if strings.Contains(name, ".git/") {
		s.git(w, r, name)
		return
	}
	if strings.HasSuffix(name, "/") {
		name += "index"
	}
	s.file(w, r, name)
}

func (s *Site) git(w http.ResponseWriter, r *http.Request, name string) {
	program, err := exec.LookPath("git")
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	r = r.Clone(r.Context())
	r.URL.Path = name
	server := cgi.Handler{
		Path: program, Args: []string{"http-backend"}, Root: "/", Stderr: io.Discard,
		Env: append([]string{"GIT_PROJECT_ROOT=" + s.dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_PROTOCOL=" + r.Header.Get("Git-Protocol")}, GitEnv...),
	}
	server.ServeHTTP(w, r)
}

func (s *Site) file(w http.ResponseWriter, r *http.Request, name string) {
	body, modified, err := s.read(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	query := r.URL.Query()
	if query.Has("name") {
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", query.Get("name")))
	}
	if !query.Has("untagged") {
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256(body)))
	}
	if query.Has("untimed") {
		modified = time.Time{}
	}
	http.ServeContent(w, r, path.Base(name), modified, strings.NewReader(string(body)))
}

func (s *Site) read(name string) ([]byte, time.Time, error) {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer root.Close()
	f, err := root.Open(strings.TrimPrefix(path.Clean(name), "/"))
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	body, err := io.ReadAll(f)
	return body, info.ModTime(), err
}
