package executor_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
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
				if e.Kind == executor.EventDone && e.Err != "" {
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
