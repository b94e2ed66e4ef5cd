package executor_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
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
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var linuxAMD64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}

// A kit is what a test builds with: a registry of its own, a store, and a
// runner that is a Go function.
type kit struct {
	t        *testing.T
	host     string // of the registry
	requests func(*http.Request) int
	builder  *executor.Builder
	store    string

	epoch *time.Time // of the plans that are built

	mu     sync.Mutex
	ran    []string // the last argument of every process that ran
	events []event.Event
	run    func(ctx context.Context, p *sandbox.Process) error
}

// newKit makes a kit. Each process that its builds run is handled by run, which
// may be nil.
func newKit(t *testing.T, run func(ctx context.Context, p *sandbox.Process) error) *kit {
	t.Helper()
	if namespaces != nil {
		t.Skip(namespaces)
	}
	k := &kit{t: t, store: t.TempDir(), run: run}
	k.host = k.serve()
	k.reopen()
	return k
}

// serve starts another registry and returns its host. A request that
// k.requests gives a status other than 0 is answered with it.
func (k *kit) serve() string {
	handler := ggcr.New(ggcr.Logger(discardLog()))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if k.requests != nil {
			if status := k.requests(r); status != 0 {
				w.WriteHeader(status)
				return
			}
		}
		handler.ServeHTTP(w, r)
	}))
	k.t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// reopen gives the kit a builder with an empty memory over the same store.
func (k *kit) reopen() {
	k.t.Helper()
	store, err := snapshot.Open(k.store, snapshot.Options{})
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() {
		if err := store.Close(); err != nil {
			k.t.Error(err)
		}
	})
	k.builder = &executor.Builder{
		Store:    store,
		Registry: registry.New(registry.Options{}),
		Runner:   k,
		Progress: func(e event.Event) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.events = append(k.events, e)
		},
	}
}

// Run makes the kit a Runner.
func (k *kit) Run(ctx context.Context, p *sandbox.Process) error {
	k.mu.Lock()
	k.ran = append(k.ran, p.Args[len(p.Args)-1])
	k.mu.Unlock()
	if k.run == nil {
		return errors.New("nothing was to be run")
	}
	return k.run(ctx, p)
}

// taken returns what ran since the last call.
func (k *kit) taken() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	ran := k.ran
	k.ran, k.events = nil, nil
	slices.Sort(ran)
	return ran
}

// checkVertices checks that no two vertices of what was built since the last taken have
// one number.
func (k *kit) checkVertices() {
	k.t.Helper()
	titles := make(map[int]string)
	for _, e := range k.events {
		if e.Kind != event.Start {
			continue
		}
		if other, taken := titles[e.Vertex]; taken {
			k.t.Errorf("%q has the number of %q", e.Name, other)
		}
		titles[e.Vertex] = e.Name
	}
}

// base pushes an image of these files and returns its reference.
func (k *kit) base(repo string, files map[string]string) string {
	k.t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for name, content := range files {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			k.t.Fatal(err)
		}
		if _, err := io.WriteString(tw, content); err != nil {
			k.t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		k.t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
	if err != nil {
		k.t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		k.t.Fatal(err)
	}
	cfg := &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}}
	cfg.Config.Env = []string{"PATH=/bin"}
	if img, err = mutate.Config(img, cfg.Config); err != nil {
		k.t.Fatal(err)
	}
	full, err := img.ConfigFile()
	if err != nil {
		k.t.Fatal(err)
	}
	full.OS, full.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, full); err != nil {
		k.t.Fatal(err)
	}
	ref := k.host + "/" + repo + ":latest"
	if err := remote.Write(k.ref(ref), img); err != nil {
		k.t.Fatal(err)
	}
	return ref
}

// relabel gives the image of repo another manifest and config, and leaves its layers.
func (k *kit) relabel(repo string) {
	k.t.Helper()
	ref := k.ref(k.host + "/" + repo + ":latest")
	img, err := remote.Image(ref)
	if err != nil {
		k.t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		k.t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.Author, cfg.Created = "another", v1.Time{Time: time.Unix(1800000000, 0)}
	cfg.Config.Labels = map[string]string{"new": "label"}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		k.t.Fatal(err)
	}
	annotated, ok := mutate.Annotations(img, map[string]string{"new": "annotation"}).(v1.Image)
	if !ok {
		k.t.Fatal("an annotated image is none")
	}
	if err := remote.Write(ref, annotated); err != nil {
		k.t.Fatal(err)
	}
}

func (k *kit) ref(s string) name.Reference {
	k.t.Helper()
	ref, err := name.ParseReference(s)
	if err != nil {
		k.t.Fatal(err)
	}
	return ref
}

// build builds text with o.
func (k *kit) build(ctx context.Context, text string, o executor.Options) (*executor.Result, error) {
	k.t.Helper()
	return k.buildWith(ctx, text, o, dockerfile.Options{})
}

// buildWith builds text with o, planned with p for linux/amd64.
func (k *kit) buildWith(ctx context.Context, text string, o executor.Options, p dockerfile.Options) (*executor.Result, error) {
	k.t.Helper()
	f, err := dockerfile.Parse("Dockerfile", strings.NewReader(strings.ReplaceAll(text, "HOST", k.host)))
	if err != nil {
		k.t.Fatal(err)
	}
	if p.BuildPlatform = linuxAMD64; p.TargetPlatform.OS == "" {
		p.TargetPlatform = linuxAMD64
	}
	plan, err := f.Plan(p)
	if err != nil {
		k.t.Fatal(err)
	}
	if k.epoch != nil {
		plan.Epoch = k.epoch
	}
	return k.builder.Build(ctx, []*dockerfile.Plan{plan}, o)
}

// buildFor builds text for several platforms with o.
func (k *kit) buildFor(text string, o executor.Options, targets ...ocispec.Platform) (*executor.Result, error) {
	k.t.Helper()
	f, err := dockerfile.Parse("Dockerfile", strings.NewReader(strings.ReplaceAll(text, "HOST", k.host)))
	if err != nil {
		k.t.Fatal(err)
	}
	var plans []*dockerfile.Plan
	for _, p := range targets {
		plan, err := f.Plan(dockerfile.Options{TargetPlatform: p, PlatformGiven: true, BuildPlatform: linuxAMD64})
		if err != nil {
			k.t.Fatal(err)
		}
		plans = append(plans, plan)
	}
	return k.builder.Build(k.t.Context(), plans, o)
}

// mustBuild is build without an error.
func (k *kit) mustBuild(text string, o executor.Options) *executor.Result {
	k.t.Helper()
	r, err := k.build(k.t.Context(), text, o)
	if err != nil {
		k.t.Fatal(err)
	}
	return r
}

// mustBuildWith is buildWith without an error.
func (k *kit) mustBuildWith(text string, o executor.Options, p dockerfile.Options) *executor.Result {
	k.t.Helper()
	r, err := k.buildWith(k.t.Context(), text, o, p)
	if err != nil {
		k.t.Fatal(err)
	}
	return r
}

// pull fetches an image with another client, and its files by name.
func (k *kit) pull(ref string) (v1.Image, map[string]string) {
	k.t.Helper()
	img, err := remote.Image(k.ref(ref))
	if err != nil {
		k.t.Fatal(err)
	}
	rc := mutate.Extract(img)
	defer rc.Close()
	return img, readTar(k.t, rc)
}

// readTar returns the contents of a tar's regular files by name.
func readTar(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files["/"+strings.TrimPrefix(h.Name, "/")] = string(data)
	}
}

// exists reports whether the registry has a manifest under ref.
func (k *kit) exists(ref string) bool {
	k.t.Helper()
	_, err := remote.Head(k.ref(ref))
	return err == nil
}

// clean checks that nothing of a build is left: no mount, no active snapshot.
func (k *kit) clean() {
	k.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		k.t.Fatal(err)
	}
	if strings.Contains(string(mounts), k.store) {
		k.t.Errorf("still mounted:\n%s", mounts)
	}
	left, err := filepath.Glob(filepath.Join(k.store, "ids", "*", "active", "[^.]*"))
	if err != nil {
		k.t.Fatal(err)
	}
	if len(left) > 0 {
		k.t.Errorf("left behind: %q", left)
	}
}

// shell is a run function that understands "NAME=CONTENT", which writes a
// file, and "fail".
func shell(_ context.Context, p *sandbox.Process) error {
	for cmd := range strings.FieldsSeq(p.Args[len(p.Args)-1]) {
		if cmd == "fail" {
			return &sandbox.ExitError{Code: 3}
		}
		file, content, _ := strings.Cut(cmd, "=")
		if err := os.WriteFile(filepath.Join(p.Root, file), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// opener returns a function that opens the blob d of img.
func opener(img *registry.Image, d ocispec.Descriptor) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) { return img.Blob(ctx, d) }
}

// writeTree writes files below root.
func writeTree(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, path)), into); err != nil {
		t.Fatal(err)
	}
}
