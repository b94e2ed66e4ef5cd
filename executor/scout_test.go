package executor_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/sandbox"
)

// What isn't in the context, or in a named one, is said before any command runs,
// wherever the step is that wants it, and once.
func TestMissingSources(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		step string // in a stage behind a RUN
		want string // of the error, "" if there is none
	}{
		"COPY":                     {"COPY missing /", `"missing": not found`},
		"one of several":           {"COPY there missing /", `"missing": not found`},
		"ADD":                      {"ADD missing.tar /", `"missing.tar": not found`},
		"below a file":             {"COPY there/x /", `"there/x": not found`},
		"ignored":                  {"COPY ignored /", `excluded by .dockerignore (pattern "ignored")`},
		"a variable":               {"ARG V=missing\nCOPY $V /", `"missing": not found`},
		"a dangling link":          {"COPY dangling /", `it is a symbolic link to "/nowhere"`},
		"a socket":                 {"COPY socket /", "a socket can't be copied"},
		"below a wildcard":         {"COPY missing/* /", `"missing/*": not found`},
		"with parents":             {"COPY --parents missing/x /", `"missing/x": not found`},
		"a bind mount":             {"RUN --mount=type=bind,source=missing,target=/m never", `mount on /m: "missing": not found`},
		"a named context":          {"COPY --from=other there /", `"there": not found`},
		"a mount of a context":     {"RUN --mount=from=other,source=/there,target=/m never", `mount on /m: "there": not found`},
		"a bad mode":               {"ARG V=nomode\nCOPY --chmod=$V there /", "nomode"},
		"a wildcard without match": {"COPY miss*ng there /", ""},
		"a file and a directory":   {"COPY there dir /", ""},
		"a cache mount":            {"RUN --mount=type=cache,target=/c x=1", ""},
		"another's file":           {"COPY --from=one a /", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, shell)
			k.base("base", map[string]string{"b": "b"})
			dir := contextDir(t, map[string]string{"there": "1", "dir/f": "2", "ignored": "3"})
			if err := os.Symlink("/nowhere", filepath.Join(dir, "dangling")); err != nil {
				t.Fatal(err)
			}
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "socket"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			text := "FROM HOST/base AS one\nRUN a=1\nFROM HOST/base AS two\nRUN c=1\nCOPY --from=one a /d\n" + tt.step +
				"\nFROM HOST/base AS unneeded\nCOPY missing too /\nFROM two\nRUN e=1\n"
			o := executor.Options{
				Context: dir, Ignore: []string{"ignored"},
				Contexts: map[string]executor.Context{"other": {Dir: contextDir(t, map[string]string{"o": "o"})}},
			}
			_, err = k.buildWith(t.Context(), text, o, dockerfile.Options{Contexts: map[string]dockerfile.Context{"other": {}}})
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "Dockerfile:") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			var told []string
			for _, e := range k.events {
				if e.Kind == event.Done && e.Err != "" {
					told = append(told, e.Err)
				}
			}
			if len(told) > 1 || len(told) == 1 && !strings.Contains(told[0], tt.want) {
				t.Errorf("told %q", told)
			}
			if ran := k.taken(); len(ran) > 0 {
				t.Errorf("ran %q", ran)
			}
		})
	}
}

// A context that there isn't is missed as early.
func TestMissingContext(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	_, err := k.build(t.Context(), "FROM scratch\nRUN a=1\nCOPY x /\n", executor.Options{})
	if _, ok := errors.AsType[*executor.StepError](err); !ok || !strings.Contains(err.Error(), "Dockerfile:3: COPY x /: there is no build context") {
		t.Errorf("got %v", err)
	}
	if ran := k.taken(); !slices.Equal(ran, nil) {
		t.Errorf("ran %q", ran)
	}
}

// serveRepository serves a repository with files, each of which holds its name, and
// returns its address.
func serveRepository(t *testing.T, files ...string) string {
	t.Helper()
	const backend = "/usr/lib/git-core/git-http-backend"
	if _, err := os.Stat(backend); err != nil {
		t.Skip("git http-backend is not installed")
	}
	home, dir := t.TempDir(), t.TempDir()
	for _, name := range files {
		writeTree(t, dir, map[string]string{name: name})
	}
	for _, args := range [][]string{
		{"init", "-q"},
		{"add", "-A"},
		{"-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "work"},
	} {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+home, "GIT_CONFIG_NOSYSTEM=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	srv := httptest.NewServer(&cgi.Handler{Path: backend, Env: []string{
		"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "HOME=" + home,
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}})
	t.Cleanup(srv.Close)
	return srv.URL + "/.git"
}

// What isn't in a context that lies elsewhere, and a place that can't be reached, ends
// the first command, wherever the step is that wants it.
func TestMissingElsewhere(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/there" {
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(web.Close)
	contexts := map[string]executor.Context{
		"file":    {URL: web.URL + "/there"},
		"nofile":  {URL: web.URL + "/gone"},
		"tree":    {Repository: &dockerfile.Repository{Remote: serveRepository(t, "there")}},
		"notree":  {Repository: &dockerfile.Repository{Remote: web.URL + "/gone.git"}},
		"unnamed": {URL: web.URL + "/gone"}, // by no step
	}
	for name, tt := range map[string]struct{ step, want string }{
		"a file":             {"COPY --from=file there /", `"there": not found`},
		"a tree":             {"COPY --from=tree gone /", `"gone": not found`},
		"a mount":            {"RUN --mount=from=tree,source=/gone,target=/m never", `mount on /m: "gone": not found`},
		"no file":            {"COPY --from=nofile context /", `context "nofile": `},
		"no tree":            {"COPY --from=notree there /", `context "notree": `},
		"nothing to add":     {"ADD " + web.URL + "/gone /", "404"},
		"nothing to clone":   {"ADD " + web.URL + "/gone.git /", "gone.git"},
		"one of two sources": {"ADD " + web.URL + "/there " + web.URL + "/gone /d/", "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, func(ctx context.Context, _ *sandbox.Process) error {
				<-ctx.Done()
				return context.Cause(ctx)
			})
			named := make(map[string]dockerfile.Context)
			for name := range contexts {
				named[name] = dockerfile.Context{}
			}
			text := "FROM scratch AS one\nRUN a=1\nFROM scratch\nRUN b=1\nCOPY --from=one a /d\n" + tt.step + "\n"
			_, err := k.buildWith(t.Context(), text, executor.Options{Contexts: contexts}, dockerfile.Options{Contexts: named})
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "Dockerfile:6") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			told := 0
			for _, e := range k.events {
				if e.Kind == event.Done && e.Err != "" && e.Err != "canceled" && strings.Contains(err.Error(), e.Err) {
					told++
				}
			}
			if told == 0 {
				t.Error("it isn't told")
			}
		})
	}
}

// A tree that was here and whose files no step needs isn't fetched to look in it.
func TestTreeThatIsNotNeeded(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	o := executor.Options{Contexts: map[string]executor.Context{"tree": {Repository: &dockerfile.Repository{Remote: serveRepository(t, "file")}}}}
	p := dockerfile.Options{Contexts: map[string]dockerfile.Context{"tree": {}}}
	const text = "FROM scratch\nRUN a=1\nCOPY --from=tree file /copied\n"
	k.mustBuildWith(text, o, p)
	k.forget("file")
	k.reopen()
	k.taken()
	k.mustBuildWith(text, o, p)
	for _, e := range k.events {
		if strings.HasPrefix(e.Name, "load git source") {
			t.Error("the tree was fetched")
		}
	}
}
