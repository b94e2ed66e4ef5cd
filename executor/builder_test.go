package executor_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/snapshot"
	"golang.org/x/sys/unix"
)

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

func TestTwoStages(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"from-base": "b"})
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"src/main": "source", "ignored": "x"})
	text := `FROM HOST/base AS build
COPY src /src/
RUN built=it
FROM HOST/base
ENV A=1
COPY --from=build /built /src /out/
RUN last=one
CMD ["/out/built"]
`
	r := k.mustBuild(text, executor.Options{Context: dir, Tags: []string{k.host + "/app:1"}})
	img, files := k.pull(k.host + "/app:1")
	want := map[string]string{"/from-base": "b", "/out/built": "it", "/out/main": "source", "/last": "one"}
	if !maps.Equal(files, want) {
		t.Errorf("files %v, want %v", files, want)
	}
	d, err := img.Digest()
	if err != nil || d.String() != r.Manifest.Digest.String() {
		t.Errorf("the registry has %v (%v), the result says %s", d, err, r.Manifest.Digest)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.RootFS.DiffIDs) != 3 || len(r.Layers) != 3 {
		t.Errorf("%d layers, %d in the result; want 3", len(cfg.RootFS.DiffIDs), len(r.Layers))
	}
	if !slices.Equal(cfg.Config.Env, []string{"PATH=/bin", "A=1"}) || !slices.Equal(cfg.Config.Cmd, []string{"/out/built"}) {
		t.Errorf("config %+v", cfg.Config)
	}
	layers := 0
	for _, h := range cfg.History {
		if !h.EmptyLayer {
			layers++
		}
	}
	if layers != 3 {
		t.Errorf("history tells of %d layers: %+v", layers, cfg.History)
	}
	if name, err := img.ConfigName(); err != nil || name.String() != r.Config.String() {
		t.Errorf("config %v (%v), the result says %s", name, err, r.Config)
	}
	k.clean()
}

// A build whose results are all known runs nothing, and makes the same image.
func TestNothingChanged(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"a": "1"})
	text := "FROM HOST/base AS one\nRUN x=1\nFROM HOST/base\nCOPY a /\nCOPY --from=one /x /y\nRUN z=1\nLABEL l=1\n"
	o := executor.Options{Context: dir, Tags: []string{k.host + "/app:1"}}
	first := k.mustBuild(text, o)
	if ran := k.taken(); !slices.Equal(ran, []string{"x=1", "z=1"}) {
		t.Fatalf("the first build ran %q", ran)
	}
	for range 2 {
		k.reopen()
		again := k.mustBuild(text, o)
		if ran := k.taken(); len(ran) > 0 {
			t.Errorf("ran %q again", ran)
		}
		if again.Manifest.Digest != first.Manifest.Digest {
			t.Errorf("digest %s, before %s", again.Manifest.Digest, first.Manifest.Digest)
		}
	}
	o.NoCache = true
	k.mustBuild(text, o)
	if ran := k.taken(); !slices.Equal(ran, []string{"x=1", "z=1"}) {
		t.Errorf("without cache it ran %q", ran)
	}
}

// What a heredoc says is part of a step.
func TestHeredocsAreInKeys(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	const text = "FROM HOST/base\nCOPY <<E /f\none\nE\nRUN <<E\nh=1\nE\nRUN z=1\n"
	for _, step := range []struct {
		text string
		want []string
	}{
		{text, []string{"h=1", "z=1"}},
		{text, nil},
		{strings.Replace(text, "h=1", "h=2", 1), []string{"h=2", "z=1"}},
		{strings.Replace(text, "one", "two", 1), []string{"h=1", "z=1"}},
	} {
		k.mustBuild(step.text, executor.Options{})
		ran := k.taken()
		for i, command := range ran {
			ran[i] = strings.TrimSpace(command)
		}
		if !slices.Equal(ran, step.want) {
			t.Errorf("of %q ran %q, want %q", step.text, ran, step.want)
		}
	}
}

// A stage that is built anew but comes out the same changes nothing behind it.
func TestCopyFromIsByContent(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	text := "FROM HOST/base AS one\nRUN out=same V=1\nFROM HOST/base\nCOPY --from=one /out /\nRUN last=1\n"
	k.mustBuild(text, executor.Options{})
	k.taken()
	k.mustBuild(strings.ReplaceAll(text, "V=1", "V=2"), executor.Options{})
	if ran := k.taken(); !slices.Equal(ran, []string{"out=same V=2"}) {
		t.Errorf("ran %q", ran)
	}
}

func TestFailingRun(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	text := "FROM HOST/base\nRUN fine=1\nRUN fail\nRUN never=1\n"
	_, err := k.build(t.Context(), text, executor.Options{Tags: []string{k.host + "/app:1"}})
	step, ok := errors.AsType[*executor.StepError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	if step.Location.Start != 3 || !strings.Contains(err.Error(), "exit code: 3") {
		t.Errorf("line %d: %v", step.Location.Start, err)
	}
	if strings.Count(err.Error(), "Dockerfile:") != 1 {
		t.Errorf("the place is not said once: %v", err)
	}
	if k.exists(k.host + "/app:1") {
		t.Error("something was pushed")
	}
	if ran := k.taken(); slices.Contains(ran, "never=1") {
		t.Errorf("ran %q", ran)
	}
	k.clean()
}

func TestMissingSource(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	for _, text := range []string{"FROM HOST/base\nCOPY nothing /\n", "FROM HOST/base AS a\nFROM HOST/base\nCOPY --from=a /nothing /\n"} {
		_, err := k.build(t.Context(), text, executor.Options{Context: t.TempDir(), Tags: []string{k.host + "/app:1"}})
		if _, ok := errors.AsType[*executor.StepError](err); !ok || !strings.Contains(err.Error(), "nothing") {
			t.Errorf("%q: %v", text, err)
		}
	}
	k.clean()
}

// A base image that isn't there is the fault of the line that names it.
func TestMissingBase(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	_, err := k.build(t.Context(), "FROM scratch AS a\nFROM HOST/nothing\nCOPY --from=a /x /\n", executor.Options{})
	step, ok := errors.AsType[*executor.StepError](err)
	if !ok || step.Location.Start != 2 || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("got %v", err)
	}
}

// Cancelling ends a step that runs, and leaves nothing.
func TestCancel(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	k := newKit(t, func(ctx context.Context, _ *sandbox.Process) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	k.base("base", map[string]string{"b": "b"})
	_, err := k.build(ctx, "FROM HOST/base\nRUN long\n", executor.Options{Tags: []string{k.host + "/app:1"}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if k.exists(k.host + "/app:1") {
		t.Error("something was pushed")
	}
	k.clean()
}

// Stages that don't need one another run at the same time, and a stage that
// nobody needs doesn't run.
func TestStagesAreParallel(t *testing.T) {
	t.Parallel()
	var both sync.WaitGroup
	both.Add(2)
	k := newKit(t, func(ctx context.Context, p *sandbox.Process) error {
		if strings.HasPrefix(p.Args[len(p.Args)-1], "meet") {
			both.Done()
			both.Wait()
		}
		return shell(ctx, p)
	})
	k.base("base", map[string]string{"b": "b"})
	text := `FROM HOST/base AS a
RUN meet1=1
FROM HOST/base AS unneeded
RUN unneeded=1
FROM HOST/base AS b
RUN meet2=2
FROM scratch
COPY --from=a /meet1 /
COPY --from=b /meet2 /
`
	k.mustBuild(text, executor.Options{Jobs: 2, Tags: []string{k.host + "/app:1"}})
	if ran := k.taken(); !slices.Equal(ran, []string{"meet1=1", "meet2=2"}) {
		t.Errorf("ran %q", ran)
	}
	_, files := k.pull(k.host + "/app:1")
	if want := map[string]string{"/meet1": "1", "/meet2": "2"}; !maps.Equal(files, want) {
		t.Errorf("files %v, want %v", files, want)
	}
}

// A step that two stages and two builds have in common runs once.
func TestSameStepRunsOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	text := `FROM HOST/base AS a
RUN x=1
FROM HOST/base AS b
RUN x=1
FROM scratch
COPY --from=a /x /a
COPY --from=b /x /b
`
	var builds sync.WaitGroup
	for range 3 {
		builds.Go(func() {
			if _, err := k.build(t.Context(), text, executor.Options{Jobs: 4}); err != nil {
				t.Error(err)
			}
		})
	}
	builds.Wait()
	if ran := k.taken(); !slices.Equal(ran, []string{"x=1"}) {
		t.Errorf("ran %q", ran)
	}
}

// A stage based on another one sees its arguments and runs its triggers, once.
func TestStageOnStage(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	text := "FROM HOST/base AS a\nARG V=1\nENV E=$V\nRUN x=1\nONBUILD RUN t=1\nFROM a AS b\nFROM b\nRUN [\"sh\", \"-c\", \"y=2\"]\nENV F=${V}2\n"
	r := k.mustBuild(text, executor.Options{Tags: []string{k.host + "/app:1"}})
	img, files := k.pull(k.host + "/app:1")
	if want := map[string]string{"/b": "b", "/x": "1", "/t": "1", "/y": "2"}; !maps.Equal(files, want) {
		t.Errorf("files %v, want %v", files, want)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"PATH=/bin", "E=1", "F=12"}; !slices.Equal(cfg.Config.Env, want) {
		t.Errorf("environment %q, want %q", cfg.Config.Env, want)
	}
	if len(r.Layers) != 4 || len(cfg.RootFS.DiffIDs) != 4 {
		t.Errorf("%d layers", len(r.Layers))
	}
	var by []string
	for _, h := range cfg.History[1:] {
		by = append(by, h.CreatedBy)
	}
	want := []string{
		"ARG V=1", "ENV E=1", "RUN |1 V=1 /bin/sh -c x=1 # buildkit",
		"RUN |1 V=1 /bin/sh -c t=1 # buildkit", "RUN |1 V=1 sh -c y=2 # buildkit", "ENV F=12",
	}
	if !slices.Equal(by, want) {
		t.Errorf("history %q, want %q", by, want)
	}
}

// Many layers with the same digest are one blob, several times in the image.
func TestEqualLayers(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(context.Context, *sandbox.Process) error { return nil })
	k.base("base", map[string]string{"b": "b"})
	text := "FROM HOST/base\n" + strings.Repeat("RUN nothing\n", 12)
	r := k.mustBuild(text, executor.Options{Tags: []string{k.host + "/a:1", k.host + "/b:1"}})
	if len(r.Layers) != 13 {
		t.Errorf("%d layers", len(r.Layers))
	}
	for _, l := range r.Layers[2:] {
		if l.Digest != r.Layers[1].Digest {
			t.Errorf("layers that hold nothing differ: %s, %s", l.Digest, r.Layers[1].Digest)
		}
	}
	k.pull(k.host + "/a:1")
	k.pull(k.host + "/b:1")
}

// An upload that breaks while the layer is being made is made again.
func TestUploadBreaks(t *testing.T) {
	t.Parallel()
	large := make([]byte, 3<<20) // and not compressible: small layers are sent when they are made
	_, _ = rand.NewChaCha8([32]byte{}).Read(large)
	k := newKit(t, func(_ context.Context, p *sandbox.Process) error {
		return os.WriteFile(filepath.Join(p.Root, "x"), large, 0o600)
	})
	k.base("base", map[string]string{"b": "b"})
	var mu sync.Mutex
	broken := 0
	k.requests = func(r *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPatch && broken < 1 {
			broken++
			return http.StatusInternalServerError
		}
		return 0
	}
	k.mustBuild("FROM HOST/base\nRUN large\n", executor.Options{Tags: []string{k.host + "/app:1"}})
	if broken == 0 {
		t.Error("no upload was broken")
	}
	if _, files := k.pull(k.host + "/app:1"); files["/x"] != string(large) {
		t.Errorf("file x has %d other bytes", len(files["/x"]))
	}
}

// One build goes to registries that know nothing of one another.
func TestTwoRegistries(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	other := k.serve()
	k.mustBuild("FROM HOST/base\nRUN x=1\n", executor.Options{Tags: []string{k.host + "/app:1", other + "/app:2"}})
	_, here := k.pull(k.host + "/app:1")
	_, there := k.pull(other + "/app:2")
	if want := map[string]string{"/b": "b", "/x": "1"}; !maps.Equal(here, want) || !maps.Equal(there, want) {
		t.Errorf("%v and %v, want %v", here, there, want)
	}
}

// A target whose layers can't be sent keeps the manifest from all of them.
func TestManifestsAreLast(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	k.requests = func(r *http.Request) int {
		if r.Method == http.MethodPut && strings.HasPrefix(r.URL.Path, "/v2/second/blobs/") {
			return http.StatusForbidden
		}
		return 0
	}
	second := k.serve() + "/second:1"
	_, err := k.build(t.Context(), "FROM HOST/base\nRUN x=1\n", executor.Options{Tags: []string{k.host + "/first:1", second}})
	if err == nil || !strings.Contains(err.Error(), "second") {
		t.Errorf("got %v", err)
	}
	if k.exists(k.host+"/first:1") || k.exists(second) {
		t.Error("an image was pushed")
	}
}

// A registry that can't be pushed to is said before anything runs.
func TestUnreachableTarget(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	_, err := k.build(t.Context(), "FROM HOST/base\nRUN x=1\n", executor.Options{Tags: []string{"127.0.0.1:1/app:1"}})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") {
		t.Errorf("got %v", err)
	}
	if ran := k.taken(); len(ran) > 0 {
		t.Errorf("ran %q", ran)
	}
}

// A file that can't be written is said before anything runs.
func TestUnwritableOutput(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	dest := filepath.Join(t.TempDir(), "missing", "out.tar")
	_, err := k.build(t.Context(), "FROM scratch\nRUN x=1\n", executor.Options{Outputs: []image.Output{{Type: image.OutputTar, Dest: dest}}})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), dest) {
		t.Errorf("got %v", err)
	}
	if ran := k.taken(); len(ran) > 0 {
		t.Errorf("ran %q", ran)
	}
}

func TestFileOutputs(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	dir := t.TempDir()
	outputs := []image.Output{
		{Type: image.OutputLocal, Dest: filepath.Join(dir, "local")},
		{Type: image.OutputTar, Dest: filepath.Join(dir, "out.tar")},
	}
	r := k.mustBuild("FROM HOST/base\nRUN x=1\n", executor.Options{Outputs: outputs})
	if r.Manifest.Digest != "" {
		t.Errorf("an image was assembled: %s", r.Manifest.Digest)
	}
	f, err := os.Open(filepath.Join(dir, "out.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if files, want := readTar(t, f), map[string]string{"/b": "b", "/x": "1"}; !maps.Equal(files, want) {
		t.Errorf("tar holds %v, want %v", files, want)
	}
	data, err := os.ReadFile(filepath.Join(dir, "local", "x"))
	if err != nil || string(data) != "1" {
		t.Errorf("local: %q, %v", data, err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	k.clean()
}

// TestFilesKeepUserAttributes: files that leave a build carry user attributes, the
// layers of an image don't, as from BuildKit.
func TestFilesKeepUserAttributes(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	dir, out := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(dir, "f"), "user.note", []byte("n"), 0); errors.Is(err, unix.ENOTSUP) {
		t.Skip("no user attributes here")
	} else if err != nil {
		t.Fatal(err)
	}
	tarball, files, layout := filepath.Join(out, "files.tar"), filepath.Join(out, "files"), filepath.Join(out, "layout")
	r := k.mustBuild("FROM scratch\nCOPY f /\n", executor.Options{Context: dir, Report: true, Outputs: []image.Output{
		{Type: image.OutputTar, Dest: tarball},
		{Type: image.OutputLocal, Dest: files},
		{Type: image.OutputOCI, Dest: layout, Dir: true, Format: image.Format{Compression: snapshot.Compression{Method: snapshot.Uncompressed}}},
	}})
	value := make([]byte, 8)
	if n, err := unix.Getxattr(filepath.Join(files, "f"), "user.note", value); err != nil || string(value[:n]) != "n" {
		t.Errorf("type=local has user.note %q, %v", value[:max(n, 0)], err)
	}
	for file, want := range map[string]bool{
		tarball: true,
		filepath.Join(layout, "blobs", "sha256", r.Layers[0].DiffID.Encoded()): false,
	} {
		if got := strings.Contains(readFile(t, file), "SCHILY.xattr.user.note=n"); got != want {
			t.Errorf("%s has user.note: %v, want %v", file, got, want)
		}
	}
}
