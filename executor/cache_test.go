package executor_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/snapshot"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// elsewhere gives the kit an empty store and memory, as another machine has them.
func (k *kit) elsewhere() {
	k.store = k.t.TempDir()
	k.reopen()
	k.taken()
}

// warnings returns the warnings since the last call of taken.
func (k *kit) warnings() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all []string
	for _, e := range k.events {
		if e.Kind == event.Warning {
			all = append(all, e.Name)
		}
	}
	return all
}

const cachedStages = `FROM HOST/base AS build
COPY a /
RUN built=it
FROM HOST/base
WORKDIR /w
COPY --from=build /built /out/
RUN --mount=from=build,source=/a,target=/m last=one
CMD ["/x"]
`

// opened returns a function that opens body.
func opened(body []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

func fromRef(ref string) []cache.Source { return []cache.Source{{Ref: ref}} }

// Another machine finds every step in the cache, moves no layer, and makes the same
// image. A change then runs what it concerns, over files from the cache, which the
// store has from then on.
func TestCacheFromAnotherMachine(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"a": "1"})
	ref := k.host + "/cache:1"
	o := executor.Options{Context: dir, Tags: []string{k.host + "/app:1"}, CacheTo: []cache.Target{{Ref: ref, Max: true}}}
	first := k.mustBuild(cachedStages, o)
	k.elsewhere()
	dir = t.TempDir()
	writeTree(t, dir, map[string]string{"a": "1"})

	o = executor.Options{Context: dir, Tags: []string{k.host + "/other:1"}, CacheFrom: fromRef(ref)}
	var pulled, sent atomic.Int64
	k.requests = func(r *http.Request) int {
		switch {
		case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/"):
			pulled.Add(1)
		case r.Method == http.MethodPatch, r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/"):
			sent.Add(1)
		}
		return 0
	}
	second := k.mustBuild(cachedStages, o)
	if ran := k.taken(); len(ran) > 0 {
		t.Errorf("ran %q", ran)
	}
	if second.Manifest.Digest != first.Manifest.Digest {
		t.Errorf("digest %s, before %s", second.Manifest.Digest, first.Manifest.Digest)
	}
	// The configs of the base and of the cache came, the config of the image went: ggcr's
	// registry keeps the blobs of all repositories together.
	if pulled.Load() != 2 || sent.Load() > 2 {
		t.Errorf("%d blobs were pulled and %d sent", pulled.Load(), sent.Load())
	}
	if left, err := filepath.Glob(filepath.Join(k.store, "ids", "*", "snapshots", "*")); err != nil || len(left) > 0 {
		t.Errorf("snapshots %q, %v", left, err)
	}

	k.reopen()
	k.mustBuild(cachedStages+"RUN more=2\n", o)
	if ran := k.taken(); !slices.Equal(ran, []string{"more=2"}) {
		t.Errorf("after a change ran %q", ran)
	}
	_, files := k.pull(k.host + "/other:1")
	if want := map[string]string{"/b": "b", "/out/built": "it", "/last": "one", "/more": "2"}; !maps.Equal(files, want) {
		t.Errorf("files %v, want %v", files, want)
	}
	k.reopen()
	o.CacheFrom = nil
	k.requests = func(r *http.Request) int {
		if strings.Contains(r.URL.Path, "/cache/") {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		return 0
	}
	k.mustBuild("FROM HOST/base\nWORKDIR /w\nRUN own=1\n", o)
	if ran := k.taken(); !slices.Equal(ran, []string{"own=1"}) {
		t.Errorf("without the cache ran %q", ran)
	}
	k.clean()
}

// What was fetched is found again without the cache, as an image with the same digest.
func TestFetchedCacheIsKept(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	ref := k.host + "/cache:1"
	const text = "FROM HOST/base\nRUN one=1\nRUN two=2\nRUN three=3\n"
	first := k.mustBuild(text, executor.Options{CacheTo: []cache.Target{{Ref: ref}}})
	k.elsewhere()
	k.mustBuild(text+"RUN four=4\n", executor.Options{CacheFrom: fromRef(ref)})
	if ran := k.taken(); !slices.Equal(ran, []string{"four=4"}) {
		t.Errorf("ran %q", ran)
	}
	k.reopen()
	again := k.mustBuild(text, executor.Options{})
	if ran := k.taken(); len(ran) > 0 || again.Manifest.Digest != first.Manifest.Digest {
		t.Errorf("without the cache ran %q, digest %s, before %s", ran, again.Manifest.Digest, first.Manifest.Digest)
	}
}

// A cache costs a manifest and a config, however many steps there are.
func TestCacheRequests(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	var text strings.Builder
	text.WriteString("FROM scratch\n")
	for i := range 200 {
		fmt.Fprintf(&text, "RUN f%d=%d\n", i, i)
	}
	ref := k.host + "/cache:1"
	first := k.mustBuild(text.String(), executor.Options{CacheTo: []cache.Target{{Ref: ref}}})
	k.elsewhere()
	var requests atomic.Int64
	k.requests = func(*http.Request) int { requests.Add(1); return 0 }
	again := k.mustBuild(text.String(), executor.Options{CacheFrom: fromRef(ref)})
	if ran := k.taken(); len(ran) > 0 || requests.Load() > 4 {
		t.Errorf("%d requests, ran %q", requests.Load(), ran)
	}
	if again.Manifest.Digest != first.Manifest.Digest {
		t.Errorf("digest %s, before %s", again.Manifest.Digest, first.Manifest.Digest)
	}
}

// cacheManifest returns the manifest and the config of a cache.
func (k *kit) cacheManifest(ref string) (m ocispec.Manifest, config []byte) {
	k.t.Helper()
	got, err := remote.Get(k.ref(ref))
	if err != nil {
		k.t.Fatal(err)
	}
	if err := json.Unmarshal(got.Manifest, &m); err != nil {
		k.t.Fatal(err)
	}
	img, err := k.builder.Registry.ResolveArtifact(k.t.Context(), ref, linuxAMD64, cache.ConfigType)
	if err != nil {
		k.t.Fatal(err)
	}
	return m, img.Config
}

// mode=min keeps the steps of the result, mode=max those of all stages; both share
// their layers with the image.
func TestCacheModes(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"a": "1"})
	low, high := k.host+"/min:1", k.host+"/max:1"
	r := k.mustBuild(cachedStages, executor.Options{
		Context: dir, Tags: []string{k.host + "/app:1"}, CacheTo: []cache.Target{{Ref: low}, {Ref: high, Max: true}},
	})
	for ref, want := range map[string]int{low: 3, high: 5} {
		m, _ := k.cacheManifest(ref)
		shared := 0
		for _, l := range r.Layers {
			if slices.ContainsFunc(m.Layers, func(d ocispec.Descriptor) bool { return d.Digest == l.Digest }) {
				shared++
			}
		}
		if len(m.Layers) != want || shared != 3 {
			t.Errorf("%s has %d layers, %d of the image; want %d and 3", ref, len(m.Layers), shared, want)
		}
	}
	k.elsewhere()
	k.mustBuild(cachedStages, executor.Options{Context: dir, CacheFrom: fromRef(low)})
	if ran := k.taken(); len(ran) > 0 {
		t.Errorf("with mode=min ran %q", ran)
	}
	k.elsewhere()
	k.mustBuild(strings.Replace(cachedStages, "last=one", "last=two", 1), executor.Options{Context: dir, CacheFrom: fromRef(low)})
	if ran := k.taken(); !slices.Equal(ran, []string{"built=it", "last=two"}) {
		t.Errorf("with mode=min and a change ran %q", ran)
	}
}

// However a cache is compressed, the image comes out the same.
func TestCacheCompression(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	const text = "FROM HOST/base\nRUN one=1\n"
	ref := k.host + "/cache:1"
	to := cache.Target{Ref: ref, Compression: &snapshot.Compression{Method: snapshot.Zstd}}
	first := k.mustBuild(text, executor.Options{CacheTo: []cache.Target{to}})
	if m, _ := k.cacheManifest(ref); m.Layers[0].MediaType != ocispec.MediaTypeImageLayerZstd {
		t.Errorf("the cache's layer is %s", m.Layers[0].MediaType)
	}
	k.elsewhere()
	again := k.mustBuild(text, executor.Options{CacheFrom: fromRef(ref)})
	if ran := k.taken(); len(ran) > 0 || again.Manifest.Digest != first.Manifest.Digest {
		t.Errorf("ran %q, digest %s, before %s", ran, again.Manifest.Digest, first.Manifest.Digest)
	}
}

// An image can hold its own cache, for several platforms too.
func TestInlineCache(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	const text = "FROM scratch\nARG TARGETARCH\nWORKDIR /w\nRUN arch=$TARGETARCH\nRUN two=2\n"
	ref := k.host + "/app:1"
	arm := ocispec.Platform{OS: "linux", Architecture: "arm64"}
	o := executor.Options{Tags: []string{ref}, CacheTo: []cache.Target{{Inline: true}}}
	first, err := k.buildFor(text, o, linuxAMD64, arm)
	if err != nil {
		t.Fatal(err)
	}
	k.elsewhere()
	o.CacheFrom = fromRef(ref)
	again, err := k.buildFor(text, o, linuxAMD64, arm)
	if err != nil {
		t.Fatal(err)
	}
	if ran := k.taken(); len(ran) > 0 || again.Manifest.Digest != first.Manifest.Digest {
		t.Errorf("ran %q, digest %s, before %s", ran, again.Manifest.Digest, first.Manifest.Digest)
	}
	// What is built on the image inherits none of it.
	k.mustBuild("FROM HOST/app:1\nRUN x=1\n", executor.Options{Tags: []string{k.host + "/next:1"}})
	img, _ := k.pull(k.host + "/next:1")
	if config, err := img.RawConfigFile(); err != nil || strings.Contains(string(config), "bob.cache") {
		t.Errorf("config %s, %v", config, err)
	}
}

func TestLocalCache(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	const text = "FROM HOST/base\nRUN one=1\nRUN two=2\n"
	dir := filepath.Join(t.TempDir(), "cache")
	to := []cache.Target{{Dir: dir, Tag: "latest"}}
	first := k.mustBuild(text, executor.Options{CacheTo: to})
	from := []cache.Source{{Layout: &archive.LayoutImage{Dir: dir}}}
	k.elsewhere()
	again := k.mustBuild(text, executor.Options{CacheFrom: from, CacheTo: to, Tags: []string{k.host + "/app:1"}})
	if ran := k.taken(); len(ran) > 0 || again.Manifest.Digest != first.Manifest.Digest {
		t.Errorf("ran %q, digest %s, before %s", ran, again.Manifest.Digest, first.Manifest.Digest)
	}
	if _, files := k.pull(k.host + "/app:1"); files["/two"] != "2" {
		t.Errorf("files %v", files)
	}
}

// Where a named context lies says nothing about what is made of it.
func TestCacheOfNamedContext(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	ref := k.host + "/cache:1"
	f, err := dockerfile.Parse("Dockerfile", strings.NewReader("FROM files\nRUN one=1\nRUN --mount=from=files,target=/m two=2\nCOPY --from=files x /y\n"))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := f.Plan(dockerfile.Options{
		TargetPlatform: linuxAMD64, BuildPlatform: linuxAMD64, Contexts: map[string]dockerfile.Context{"files": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var made []digest.Digest
	for _, o := range []executor.Options{{CacheTo: []cache.Target{{Ref: ref}}}, {CacheFrom: fromRef(ref)}} {
		k.elsewhere()
		dir := t.TempDir()
		writeTree(t, dir, map[string]string{"x": "x"})
		o.Contexts = map[string]executor.Context{"files": {Dir: dir}}
		r, err := k.builder.Build(t.Context(), []*dockerfile.Plan{plan}, o)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, r.Manifest.Digest)
	}
	if ran := k.taken(); len(ran) > 0 || made[0] != made[1] {
		t.Errorf("ran %q, digests %s", ran, made)
	}
}

// A step of the cache isn't laid over anything but what it was made on.
func TestCacheOverOtherFiles(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	ref := k.host + "/cache:1"
	k.mustBuild("FROM HOST/base\nRUN one=1\nRUN two=2\n", executor.Options{CacheTo: []cache.Target{{Ref: ref}}})
	k.elsewhere()
	k.mustBuild("FROM HOST/base\nRUN one=1\n", executor.Options{}) // at another time
	k.taken()
	k.mustBuild("FROM HOST/base\nRUN one=1\nRUN two=2\n", executor.Options{CacheFrom: fromRef(ref)})
	if ran := k.taken(); !slices.Equal(ran, []string{"two=2"}) {
		t.Errorf("ran %q", ran)
	}
}

// The times in a cache's layers are those of its build.
func TestCacheEpoch(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	ref := k.host + "/cache:1"
	const text = "FROM HOST/base\nRUN one=1\n"
	early, late := time.Unix(1_000_000, 0), time.Unix(2_000_000, 0)
	k.epoch = &early
	first := k.mustBuild(text, executor.Options{CacheTo: []cache.Target{{Ref: ref}}})
	for _, tt := range []struct {
		epoch *time.Time
		ran   int
	}{{&early, 0}, {&late, 1}} {
		k.elsewhere()
		k.epoch = tt.epoch
		again := k.mustBuild(text, executor.Options{CacheFrom: fromRef(ref)})
		if ran := k.taken(); len(ran) != tt.ran || (again.Manifest.Digest == first.Manifest.Digest) != (tt.ran == 0) {
			t.Errorf("with epoch %v ran %q, digest %s, before %s", tt.epoch, ran, again.Manifest.Digest, first.Manifest.Digest)
		}
	}
}

// A cache that can't be had or can't be true costs one warning and nothing else.
func TestBadCaches(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	const text = "FROM HOST/base\nRUN one=1\n"
	ref := k.host + "/cache:1"
	k.mustBuild(text, executor.Options{CacheTo: []cache.Target{{Ref: ref}}})
	manifest, config := k.cacheManifest(ref)
	push, err := k.builder.Registry.Push(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	// put replaces the cache by one with this config.
	put := func(config []byte) {
		d := ocispec.Descriptor{MediaType: cache.ConfigType, Digest: digest.FromBytes(config), Size: int64(len(config))}
		if err := push.Blob(t.Context(), d, "", opened(config)); err != nil {
			t.Fatal(err)
		}
		m := manifest
		m.Config = d
		body, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := push.Manifest(t.Context(), ocispec.MediaTypeImageManifest, body); err != nil {
			t.Fatal(err)
		}
	}
	edit := func(old, changed string) func() {
		if !strings.Contains(string(config), old) {
			t.Fatalf("no %s in %s", old, config)
		}
		return func() { put([]byte(strings.Replace(string(config), old, changed, 1))) }
	}
	for name, tt := range map[string]struct {
		change func()
		ref    string
		want   string
	}{
		"missing":         {ref: k.host + "/none:1", want: "/none"},
		"an image":        {ref: k.host + "/base:latest", want: "holds no cache"},
		"unreachable":     {ref: "127.0.0.1:9/cache:1", want: "127.0.0.1:9"},
		"no JSON":         {change: func() { put([]byte("nothing")) }, want: "its config"},
		"no records":      {change: func() { put([]byte("{}")) }, want: "tell of 0"},
		"a key":           {change: edit(`"key":"sha256:`, `"key":"sha256:../`), want: "steps[0].key"},
		"a layer number":  {change: edit(`"layer":0`, `"layer":-1`), want: "steps[0].layer -1"},
		"a DiffID":        {change: edit(`"diffID":"sha256:`, `"diffID":"sha512:`), want: "layers[0].diffID"},
		"a compression":   {change: edit(`"compression":"gzip"`, `"compression":"zstd"`), want: "not compressed by zstd"},
		"another's layer": {change: edit(`"compression":"gzip"`, `"compression":""`), want: "no step made it"},
		"a packing":       {change: edit(`"packing":"`, `"packing":"0`), want: "another version of bob"},
		"no packing":      {change: edit(`"packing":`, `"unpacking":`), want: "another version of bob"},
		"huge":            {change: func() { put([]byte(`{"pad":"` + strings.Repeat("x", 9<<20) + `"}`)) }, want: "8 MiB"},
	} {
		k.elsewhere()
		if tt.change != nil {
			tt.change()
		}
		from := fromRef(ref)
		if tt.ref != "" {
			from = fromRef(tt.ref)
		}
		if name == "unreachable" {
			k.builder.Registry = registry.New(registry.Options{Patience: patience.Policy{Limit: -1}})
		}
		k.mustBuild(text, executor.Options{CacheFrom: from})
		warned := k.warnings()
		if ran := k.taken(); len(ran) != 1 {
			t.Errorf("%s: ran %q", name, ran)
		}
		if len(warned) != 1 || !strings.Contains(warned[0], tt.want) || !strings.Contains(warned[0], "goes on without it") {
			t.Errorf("%s: warnings %q, want %q", name, warned, tt.want)
		}
	}
	// Another one beside it serves.
	put(config)
	k.elsewhere()
	k.mustBuild(text, executor.Options{CacheFrom: append(fromRef(k.host+"/none:1"), fromRef(ref)...)})
	if warned, ran := k.warnings(), k.taken(); len(warned) != 1 || len(ran) > 0 {
		t.Errorf("beside a good one: warnings %q, ran %q", warned, ran)
	}
}

// Layers whose content is not what the records say never become files.
func TestCacheWithOtherContent(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	ref := k.host + "/cache:1"
	const text = "FROM scratch\nRUN one=1\n"
	k.mustBuild(text, executor.Options{CacheTo: []cache.Target{{Ref: ref}}})
	m, config := k.cacheManifest(ref)
	var rec map[string]any
	if err := json.Unmarshal(config, &rec); err != nil {
		t.Fatal(err)
	}
	rec["layers"] = []any{map[string]any{"diffID": digest.FromString("x"), "compression": "gzip"}}
	config, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	push, err := k.builder.Registry.Push(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	m.Config.Digest, m.Config.Size = digest.FromBytes(config), int64(len(config))
	if err := push.Blob(t.Context(), m.Config, "", opened(config)); err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := push.Manifest(t.Context(), ocispec.MediaTypeImageManifest, body); err != nil {
		t.Fatal(err)
	}
	k.elsewhere()
	k.mustBuild(text+"RUN two=2\n", executor.Options{CacheFrom: fromRef(ref)})
	warned, ran := k.warnings(), k.taken()
	if len(warned) != 1 || !strings.Contains(warned[0], "DiffID") || !slices.Equal(ran, []string{"one=1", "two=2"}) {
		t.Errorf("warnings %q, ran %q", warned, ran)
	}
	k.clean()
}

// Layers that are gone from the registry, or have become something else there, are made
// again.
func TestLostCacheLayers(t *testing.T) {
	t.Parallel()
	const text = "FROM scratch\nRUN one=1\nRUN two=2\nRUN three=3\n"
	for name, answer := range map[string]func(http.ResponseWriter){
		"gone":    func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		"damaged": func(w http.ResponseWriter) { _, _ = io.WriteString(w, "x") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, shell)
			ref := k.host + "/cache:1"
			k.mustBuild(text, executor.Options{CacheTo: []cache.Target{{Ref: ref}}})
			m, _ := k.cacheManifest(ref)
			inner := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: k.host})
			var lost atomic.Pointer[string]
			front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if d := lost.Load(); d != nil && path.Base(r.URL.Path) == *d {
					answer(w)
					return
				}
				inner.ServeHTTP(w, r)
			}))
			t.Cleanup(front.Close)
			from := fromRef(strings.TrimPrefix(front.URL, "http://") + "/cache:1")
			var app string
			for _, l := range m.Layers {
				app = k.serve() + "/app:1" // a registry without layers
				lost.Store(new(l.Digest.String()))
				for _, o := range []executor.Options{
					{Tags: []string{app}},
					{Outputs: []image.Output{{Type: image.OutputOCI, Dest: filepath.Join(t.TempDir(), "o")}}},
				} {
					k.elsewhere()
					o.CacheFrom = from
					k.mustBuild(text, o)
					k.checkVertices()
					warned, ran := k.warnings(), k.taken()
					if len(warned) != 1 || !strings.Contains(warned[0], "begins anew without that layer") || len(ran) == 0 {
						t.Errorf("warnings %q, ran %q", warned, ran)
					}
				}
			}
			if _, files := k.pull(app); files["/one"] != "1" || files["/two"] != "2" || files["/three"] != "3" {
				t.Errorf("made %v", files)
			}
			k.elsewhere()
			_, err := k.build(t.Context(), text, executor.Options{
				CacheFrom: from, Outputs: []image.Output{{Type: image.OutputOCI, Writer: io.Discard}},
			})
			if err == nil || !strings.Contains(err.Error(), *lost.Load()) {
				t.Errorf("with an output that can't be taken back: error %v", err)
			}
			k.clean()
		})
	}
}

// An image stands even if its cache can't be written.
func TestCacheThatIsNotTaken(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.requests = func(r *http.Request) int {
		if strings.HasPrefix(r.URL.Path, "/v2/cache/") {
			return http.StatusForbidden
		}
		return 0
	}
	o := executor.Options{Tags: []string{k.host + "/app:1"}, CacheTo: []cache.Target{{Ref: k.host + "/cache:1"}}}
	_, err := k.build(t.Context(), "FROM scratch\nRUN one=1\n", o)
	if err == nil || !strings.Contains(err.Error(), "export cache to "+k.host+"/cache:1") || !k.exists(k.host+"/app:1") {
		t.Errorf("error %v, image there: %v", err, k.exists(k.host+"/app:1"))
	}
	k.taken()
	o.CacheTo[0].IgnoreError = true
	k.mustBuild("FROM scratch\nRUN one=1\n", o)
	if warned := k.warnings(); len(warned) != 1 || !strings.Contains(warned[0], "export cache") {
		t.Errorf("warnings %q", warned)
	}
}

// Exporting what is there already sends nothing but the manifest.
func TestCacheExportedAgain(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"a": "1"})
	ref := k.host + "/cache:1"
	o := executor.Options{Context: dir, CacheTo: []cache.Target{{Ref: ref}}}
	k.mustBuild("FROM scratch\nCOPY a /\nRUN one=1\n", o)
	before, _ := k.cacheManifest(ref)
	k.elsewhere()
	k.requests = func(r *http.Request) int {
		if r.Method == http.MethodPatch || r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/") ||
			r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, before.Layers[0].Digest.String()) {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		return 0
	}
	o.CacheFrom = fromRef(ref)
	k.mustBuild("FROM scratch\nCOPY a /\nRUN one=1\n", o)
	k.requests = nil
	if after, _ := k.cacheManifest(ref); after.Config.Digest != before.Config.Digest {
		t.Errorf("config %s, before %s", after.Config.Digest, before.Config.Digest)
	}
}
