package executor_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/command"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A scene is what a build is made of, for a test to change.
type scene struct {
	k    *kit
	dir  string // the context
	text string
	o    executor.Options
	p    dockerfile.Options
	etag atomic.Pointer[string]
	time time.Time // of the file at WEB/f
}

// replace changes the Dockerfile.
func replace(old, now string) func(*scene) {
	return func(s *scene) {
		if !strings.Contains(s.text, old) {
			s.k.t.Fatalf("%q is not in %q", old, s.text)
		}
		s.text = strings.ReplaceAll(s.text, old, now)
	}
}

// write changes a file of the context.
func write(name, content string) func(*scene) {
	return func(s *scene) { writeTree(s.k.t, s.dir, map[string]string{name: content}) }
}

// inContext has f change the file called name.
func inContext(name string, f func(path string) error) func(*scene) {
	return func(s *scene) {
		if err := f(filepath.Join(s.dir, name)); err != nil {
			s.k.t.Fatal(err)
		}
	}
}

var imageDigest = regexp.MustCompile("sha256:[0-9a-f]{64}")

func arg(name, value string) func(*scene) {
	return func(s *scene) { s.p.BuildArgs = map[string]string{name: value} }
}

const hit = "hit"

// below is why a step misses that lies on another one that does.
func below(step string) string { return "step " + step + " changed" }

// Everything that a build is made of, changed on its own: which steps miss, as with
// BuildKit, and what is said of it.
func TestWhatAChangeMisses(t *testing.T) {
	t.Parallel()
	const (
		standard = "FROM HOST/base\nARG V=1\nRUN first=1\nCOPY a /\nRUN second=1\nENV E=1\nRUN third=1\n"
		run      = "FROM scratch\nRUN x=1\n"
		copied   = "FROM scratch\nCOPY d /d/\n"
		add      = "FROM scratch\nADD WEB/f /\n"
	)
	inText := func(name, from, old, now string, want ...string) changeCase {
		return changeCase{name, from, replace(old, now), want}
	}
	cases := []changeCase{
		{"nothing", standard, func(*scene) {}, []string{hit, hit, hit, hit}},
		{"a file that is copied", standard, write("a", "2"), []string{
			hit, "file a changed", below("[3/5] COPY a /"), below("[4/5] RUN second=1"),
		}},
		{"a file that is not", standard, write("other", "2"), []string{hit, hit, hit, hit}},
		{"an ARG that RUN sees", standard, replace("V=1", "V=2"), []string{
			"variable V changed", below("[2/5] RUN first=1"),
			"variable V changed, " + below("[3/5] COPY a /"), "variable V changed, " + below("[4/5] RUN second=1"),
		}},
		{"an ENV", standard, replace("E=1", "E=2"), []string{hit, hit, hit, "variable E changed"}},
		{"a label", standard, func(s *scene) { s.text += "LABEL x=y\n" }, []string{hit, hit, hit, hit}},
		{"a label before all steps", standard, replace("ARG V=1\n", "LABEL x=y\nMAINTAINER z\nEXPOSE 80\nARG V=1\n"), []string{hit, hit, hit, hit}},
		{"the base's labels, annotations and time", standard, func(s *scene) { s.k.relabel("base") }, []string{hit, hit, hit, hit}},
		{"the base", standard, func(s *scene) { s.k.base("base", map[string]string{"b": "changed"}) }, []string{
			"base image HOST/base:latest changed from DIGEST to DIGEST",
			below("[2/5] RUN first=1"), below("[3/5] COPY a /"), below("[4/5] RUN second=1"),
		}},
		{"the base's tag, not its content", standard, func(s *scene) {
			s.k.base("same", map[string]string{"b": "b"})
			replace("/base", "/same")(s)
		}, []string{hit, hit, hit, hit}},
		{"a step more", standard, replace("RUN second=1", "RUN more=1\nRUN second=1"), []string{
			hit, hit, "command changed", below("[4/6] RUN more=1"), below("[5/6] RUN second=1"),
		}},
		{"--no-cache", standard, func(s *scene) { s.o.NoCache = true }, slices.Repeat([]string{"--no-cache"}, 4)},
		{"--no-cache-filter", "FROM scratch AS one\nRUN x=1\nFROM one\nRUN y=1\nRUN --mount=from=one,target=/m z=1\n", func(s *scene) {
			s.p.NoCache = []string{"one"}
		}, []string{"--no-cache-filter", "stage one was made anew", "step [stage-1 1/2] RUN y=1 was made anew"}},

		inText("the command", run, "x=1", "x=2", "command changed"),
		inText("USER", "FROM scratch\nUSER 1\nRUN x=1\nCOPY a /\nWORKDIR /w\n", "USER 1", "USER 2",
			"USER changed", below("[1/3] RUN x=1"), "USER changed, "+below("[2/3] COPY a /")),
		inText("USER of a copy", "FROM scratch\nUSER 1\nCOPY a /\n", "USER 1", "USER 2", hit),
		inText("WORKDIR", "FROM scratch\nWORKDIR /w\nRUN x=1\n", "/w", "/v", "directory changed", "WORKDIR changed, "+below("[1/2] WORKDIR /v")),
		inText("SHELL", "FROM scratch\nSHELL [\"/bin/sh\", \"-c\"]\nRUN x=1\n", `"-c"`, `"-ec"`, "SHELL changed"),
		inText("--network", run, "RUN", "RUN --network=none", "--network changed"),
		inText("--security", run, "RUN", "RUN --security=insecure", "--security changed"),
		{"the network of the build", run, func(s *scene) { s.o.Network = sandbox.None }, []string{"--network of the build changed"}},
		{"--add-host", run, func(s *scene) { s.o.ExtraHosts = []string{"a:1.2.3.4"} }, []string{"--add-host changed"}},
		{"--shm-size", run, func(s *scene) { s.o.ShmSize = 1 << 20 }, []string{"--shm-size changed"}},
		{"--ulimit", run, func(s *scene) { s.o.Ulimits = []sandbox.Ulimit{{Name: "nofile", Soft: 9, Hard: 9}} }, []string{"--ulimit changed"}},
		{"the hostname", run, arg("BUILDKIT_SANDBOX_HOSTNAME", "h"), []string{"BUILDKIT_SANDBOX_HOSTNAME changed"}},
		{"the platform", run, func(s *scene) { s.p.TargetPlatform = ocispec.Platform{OS: "linux", Architecture: "arm64"} }, []string{"platform changed"}},
		{"the platform of a copy", copied, func(s *scene) { s.p.TargetPlatform = ocispec.Platform{OS: "linux", Architecture: "arm64"} }, []string{hit}},
		{"a proxy", run, arg("HTTP_PROXY", "http://p"), []string{hit}},
		{"an argument that nothing declares", run, arg("X", "1"), []string{hit}},
		inText("an ARG that isn't used", run, "RUN", "ARG N=1\nRUN", "variable N is new"),
		inText("an ARG without a value", run, "RUN", "ARG N\nRUN", hit),
		inText("an ARG after all steps", run, "x=1\n", "x=1\nARG N=1\n", hit),
		inText("a variable less", "FROM scratch\nENV N=1\nRUN x=1\n", "ENV N=1\n", "", "variable N is gone"),
		inText("an ENV of a copy", "FROM scratch\nENV N=1\nCOPY a /\n", "N=1", "N=2", hit),
		inText("the order of ENV", "FROM scratch\nENV A=1 B=1\nRUN x=1\n", "A=1 B=1", "B=1 A=1", "order of the variables changed"),
		inText("a heredoc", "FROM scratch\nRUN <<E\nx=1\nE\n", "x=1", "x=2", "command changed"),
		inText("a heredoc that is copied", "FROM scratch\nCOPY <<E /f\n1\nE\n", "1\n", "2\n", "heredoc E changed"),

		inText("one of two heredocs", "FROM scratch\nCOPY <<A <<B /d/\n1\nA\n2\nB\n", "1\n", "3\n", "heredoc A changed"),

		{"a mode", copied, inContext("d/f", func(p string) error { return os.Chmod(p, 0o600) }), []string{"file d/f changed"}},
		{"the mode of a directory", copied, inContext("d/e", func(p string) error { return os.Chmod(p, 0o700) }), []string{"file d/e changed"}},
		{"the mode of the directory that is copied", copied, inContext("d", func(p string) error { return os.Chmod(p, 0o700) }), []string{hit}},
		{"a type", copied, inContext("d/f", func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Mkdir(p, 0o644)
		}), []string{"file d/f changed"}},
		{"a link's target", copied, inContext("d/l", func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Symlink("other", p)
		}), []string{"file d/l changed"}},
		{"a time", copied, inContext("d/f", func(p string) error { return os.Chtimes(p, time.Unix(1e9, 0), time.Unix(1e9, 0)) }), []string{hit}},
		{"an owner", copied, inContext("d/f", func(p string) error { return os.Chown(p, 1, 1) }), []string{hit}},
		{"a new file", copied, write("d/n", "1"), []string{"file d/n is new"}},
		{"a missing file", copied, inContext("d/e/g", os.Remove), []string{"file d/e/g is missing"}},
		{"several files", copied, func(s *scene) {
			write("d/f", "2")(s)
			write("d/n", "2")(s)
			inContext("d/e/g", os.Remove)(s)
		}, []string{"file d/f changed, file d/n is new, file d/e/g is missing"}},
		{"an ignored file", copied, func(s *scene) {
			s.o.Ignore = []string{"**/*.log"}
			write("d/x.log", "2")(s)
		}, []string{hit}},
		inText("the destination", copied, "/d/\n", "/e/\n", "destination changed"),
		inText("--chown", copied, "COPY", "COPY --chown=1", "--chown changed"),
		{"--chown by an argument", "FROM scratch\nARG O=1\nCOPY --chown=$O a /\n", arg("O", "2"), []string{"--chown changed"}},
		inText("--chmod", copied, "COPY", "COPY --chmod=600", "--chmod changed"),
		inText("--link", copied, "COPY", "COPY --link", "--link changed"),
		inText("--exclude", copied, "COPY", "COPY --exclude=nothing", "--exclude changed"),
		inText("--parents", copied, "COPY", "COPY --parents", "instruction changed"),
		inText("ADD in place of COPY", copied, "COPY", "ADD", "source d changed"),

		inText("the target of a mount", "FROM scratch\nRUN --mount=target=/m x=1\n", "/m", "/n", "options of mount 1 changed"),
		inText("readwrite of a mount", "FROM scratch\nRUN --mount=target=/m x=1\n", "/m", "/m,rw", "options of mount 1 changed"),
		{"a file that is mounted", "FROM scratch\nRUN --mount=target=/m,source=d x=1\n", write("d/f", "2"), []string{"file d/f changed"}},
		{"a file beside what is mounted", "FROM scratch\nRUN --mount=target=/m,source=d x=1\n", write("a", "2"), []string{hit}},
		inText("what is mounted of a stage", "FROM scratch AS one\nRUN o=1\nFROM scratch\nRUN --mount=from=one,target=/m,source=/o x=1\n", "o=1", "o=2",
			"command changed", "content of mount 1 changed"),
		inText("a stage that is mounted, not what is selected", "FROM scratch AS one\nRUN o=1\nFROM scratch\nRUN --mount=from=one,target=/m,source=/o x=1\n", "o=1", "o=1 p=1",
			"command changed", hit),
		inText("what is copied of a stage", "FROM scratch AS one\nRUN o=1\nFROM scratch\nCOPY --from=one /o /\n", "o=1", "o=2",
			"command changed", "content of o changed"),
		inText("the ID of a cache mount", "FROM scratch\nRUN --mount=type=cache,target=/c x=1\n", "/c", "/c,id=i", "options of mount 1 changed"),
		inText("the sharing of a cache mount", "FROM scratch\nRUN --mount=type=cache,target=/c x=1\n", "/c", "/c,sharing=locked", "options of mount 1 changed"),
		inText("the size of a tmpfs", "FROM scratch\nRUN --mount=type=tmpfs,target=/c x=1\n", "/c", "/c,size=1m", "options of mount 1 changed"),
		inText("the ID of a secret", "FROM scratch\nRUN --mount=type=secret,id=s,target=/s x=1\n", "id=s", "id=r", "options of mount 1 changed"),
		{"a secret", "FROM scratch\nRUN --mount=type=secret,id=s,env=S x=1\n", func(s *scene) {
			s.o.Secrets = map[string]command.Secret{"s": {Data: []byte("other")}}
		}, []string{hit}},
		inText("the ID of an agent", "FROM scratch\nRUN --mount=type=ssh,id=s x=1\n", "id=s", "id=r", "options of mount 1 changed"),

		{"the ETag of a download", add, func(s *scene) { etag := `"2"`; s.etag.Store(&etag) }, []string{hit}},
		{"the time of a download", add, func(s *scene) {
			s.time = time.Unix(1700000000, 0)
			etag := `"2"`
			s.etag.Store(&etag)
		}, []string{"content of WEB/f changed"}},
		inText("--checksum", add, "ADD", "ADD --checksum="+digest.FromString("download").String(), hit),
		inText("another address of the same", add, "f /", "f?x /", hit),
	}
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t)
		})
	}
}

type changeCase struct {
	name   string
	text   string
	change func(*scene)
	want   []string // of each step
}

func (c *changeCase) test(t *testing.T) {
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	s := &scene{k: k, dir: t.TempDir(), time: time.Unix(1600000000, 0)}
	writeTree(t, s.dir, map[string]string{"a": "1", "d/f": "1", "d/e/g": "1"})
	inContext("d/l", func(p string) error { return os.Symlink("f", p) })(s)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if etag := s.etag.Load(); etag != nil {
			w.Header().Set("ETag", *etag)
		}
		http.ServeContent(w, r, "f", s.time, strings.NewReader("download"))
	}))
	t.Cleanup(web.Close)
	s.text = strings.ReplaceAll(c.text, "WEB", web.URL)
	s.o = executor.Options{Context: s.dir, ExplainCache: true, AllowInsecure: true}
	s.o.Secrets = map[string]command.Secret{"s": {Data: []byte("secret")}}
	first := k.mustBuildWith(s.text, s.o, s.p)
	for _, step := range first.Cache {
		if want := "no earlier build of this step is known"; step.Hit || step.Reason != want {
			t.Errorf("first build: %+v", step)
		}
	}
	k.taken()
	c.change(s)
	s.text = strings.ReplaceAll(s.text, "WEB", web.URL)
	second := k.mustBuildWith(s.text, s.o, s.p)
	k.mu.Lock()
	told := 0
	for _, e := range k.events {
		if e.Kind == event.Cache {
			told++
		}
	}
	k.mu.Unlock()
	if told != len(second.Cache) {
		t.Errorf("%d events tell of %d steps", told, len(second.Cache))
	}
	var got []string
	ran := k.taken()
	for _, step := range second.Cache {
		reason := step.Reason
		if step.Hit {
			reason = hit
		}
		reason = strings.NewReplacer(k.host, "HOST", web.URL, "WEB").Replace(reason)
		got = append(got, imageDigest.ReplaceAllString(reason, "DIGEST"))
		isRun := strings.Contains(step.Step, "RUN") && !strings.Contains(step.Step, "<<")
		if isRun && step.Hit == slices.ContainsFunc(ran, func(command string) bool { return strings.HasSuffix(step.Step, " "+command) }) {
			t.Errorf("%s: hit %t, but ran %q", step.Step, step.Hit, ran)
		}
	}
	if !slices.Equal(got, c.want) {
		t.Errorf("got\n%q, want\n%q", got, c.want)
	}
}

// Of very many files only their number is remembered.
func TestManyFilesChange(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	dir := t.TempDir()
	for i := range 20_001 {
		if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o := executor.Options{Context: dir, ExplainCache: true}
	const text = "FROM scratch\nCOPY . /\n"
	k.mustBuild(text, o)
	writeTree(t, dir, map[string]string{"new": "1"})
	got := k.mustBuild(text, o).Cache
	if want := "files changed: there were 20001, there are 20002"; len(got) != 1 || got[0].Reason != want {
		t.Errorf("got %+v, want %s", got, want)
	}
}

// Nothing that the store keeps tells a value that a build was given.
func TestNotesHoldNoValues(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(context.Context, *sandbox.Process) error { return nil })
	const value = "c0nfident1al"
	text := "FROM scratch\nARG A\nENV E=$A\nRUN --mount=type=secret,id=s,env=S true\n"
	k.mustBuildWith(text, executor.Options{Secrets: map[string]command.Secret{"s": {Data: []byte(value)}}},
		dockerfile.Options{BuildArgs: map[string]string{"A": value}})
	records := 0
	err := filepath.WalkDir(filepath.Join(k.store, "records"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if records++; strings.Contains(readFile(t, path), value) {
			t.Errorf("%s tells %s", path, value)
		}
		return nil
	})
	if err != nil || records == 0 {
		t.Errorf("%d records, %v", records, err)
	}
}
