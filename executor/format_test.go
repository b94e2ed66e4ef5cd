package executor_test

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/snapshot"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	linuxARM64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
	linuxARMv7 = ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
)

// manifest returns the manifest that ref names in the registry.
func (k *kit) manifest(ref string) *ocispec.Manifest {
	k.t.Helper()
	m := &ocispec.Manifest{}
	k.document(ref, m)
	return m
}

func (k *kit) document(ref string, into any) {
	k.t.Helper()
	got, err := remote.Get(k.ref(ref))
	if err != nil {
		k.t.Fatal(err)
	}
	if err := json.Unmarshal(got.Manifest, into); err != nil {
		k.t.Fatal(err)
	}
}

// layerTypes returns the media types of the layers of m.
func layerTypes(m *ocispec.Manifest) string {
	var all []string
	for _, l := range m.Layers {
		all = append(all, l.MediaType)
	}
	return strings.Join(all, " ")
}

func diffIDs(layers []registry.Layer) []digest.Digest {
	var all []digest.Digest
	for _, l := range layers {
		all = append(all, l.DiffID)
	}
	return all
}

const (
	ociGzip, ociZstd, ociPlain = ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayer

	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerPlain    = "application/vnd.docker.image.rootfs.diff.tar"
	dockerGzip     = dockerPlain + ".gzip"
)

// A known layer is compressed anew for another format and keeps its content; the
// formats don't push each other out of the store.
func TestFormatsOfOneImage(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"}) // of Docker's media types, by gzip
	ref := k.host + "/app:1"
	digests := make(map[string]digest.Digest)
	var contents []digest.Digest
	for _, tt := range []struct {
		name                     string
		format                   image.Format
		manifest, config, layers string
	}{
		{"gzip", image.Format{}, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ociGzip + " " + ociGzip},
		{
			"zstd",
			image.Format{Compression: snapshot.Compression{Method: snapshot.Zstd}},
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ociGzip + " " + ociZstd,
		},
		{
			"all zstd",
			image.Format{Compression: snapshot.Compression{Method: snapshot.Zstd}, Recompress: true},
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ociZstd + " " + ociZstd,
		},
		{
			"uncompressed",
			image.Format{Compression: snapshot.Compression{Method: snapshot.Uncompressed}, Recompress: true},
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ociPlain + " " + ociPlain,
		},
		{"docker", image.Format{DockerTypes: true}, dockerManifest, dockerConfig, dockerGzip + " " + dockerGzip},
		{
			"docker uncompressed",
			image.Format{DockerTypes: true, Compression: snapshot.Compression{Method: snapshot.Uncompressed}},
			dockerManifest, dockerConfig, dockerGzip + " " + dockerPlain,
		},
		{"gzip", image.Format{}, ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ociGzip + " " + ociGzip},
		{
			"all zstd",
			image.Format{Compression: snapshot.Compression{Method: snapshot.Zstd}, Recompress: true},
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ociZstd + " " + ociZstd,
		},
	} {
		k.reopen()
		r := k.mustBuild("FROM HOST/base\nRUN a=1\n", executor.Options{Tags: []string{ref}, Format: tt.format})
		if ran := k.taken(); (len(ran) > 0) != (contents == nil) {
			t.Errorf("%s: ran %q", tt.name, ran)
		}
		m := k.manifest(ref)
		if m.MediaType != tt.manifest || m.Config.MediaType != tt.config || layerTypes(m) != tt.layers {
			t.Errorf("%s: %s, %s, %s", tt.name, m.MediaType, m.Config.MediaType, layerTypes(m))
		}
		if contents == nil {
			contents = diffIDs(r.Layers)
		}
		if got := diffIDs(r.Layers); !slices.Equal(got, contents) {
			t.Errorf("%s: the layers hold %s, before %s", tt.name, got, contents)
		}
		if before := digests[tt.name]; before != "" && before != r.Manifest.Digest {
			t.Errorf("%s: digest %s, before %s", tt.name, r.Manifest.Digest, before)
		}
		digests[tt.name] = r.Manifest.Digest
		im, err := k.builder.Registry.Resolve(t.Context(), ref, linuxAMD64)
		if err != nil {
			t.Fatal(err)
		}
		var layers []snapshot.Layer
		for _, l := range im.Layers {
			layers = append(layers, snapshot.Layer{Blob: l.Descriptor, DiffID: l.DiffID, Open: opener(im, l.Descriptor)})
		}
		store := &kit{t: t, store: t.TempDir()} // knows nothing: every byte is read and checked
		store.reopen()
		if _, err := store.builder.Store.Unpack(t.Context(), layers, 2); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	k.clean()
}

// Each place that the image goes to may have a format of its own.
func TestFormatOfAnOutput(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	dir := filepath.Join(t.TempDir(), "layout")
	r := k.mustBuild("FROM HOST/base\nRUN a=1\n", executor.Options{
		Tags: []string{k.host + "/app:1"}, Format: image.Format{DockerTypes: true},
		Outputs: []image.Output{{
			Type: image.OutputOCI, Dir: true, Dest: dir, Names: []string{"app:1"},
			Format: image.Format{Compression: snapshot.Compression{Method: snapshot.Zstd}, Recompress: true},
		}},
	})
	if m := k.manifest(k.host + "/app:1"); r.Manifest.MediaType != dockerManifest || layerTypes(m) != dockerGzip+" "+dockerGzip {
		t.Errorf("pushed %s, %s", r.Manifest.MediaType, layerTypes(m))
	}
	im, err := (&archive.LayoutImage{Dir: dir, Tag: "1"}).Resolve(t.Context(), linuxAMD64)
	if err != nil {
		t.Fatal(err)
	}
	if layerTypes(&im.Manifest) != ociZstd+" "+ociZstd {
		t.Errorf("written %s", layerTypes(&im.Manifest))
	}
}

// A base whose layers Docker's media types can't name is refused where it is named,
// before anything runs, and taken if it is to be compressed anew.
func TestZstdBaseAsDockers(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.mustBuild("FROM scratch\nRUN a=1\n", executor.Options{
		Tags: []string{k.host + "/zstd"}, Format: image.Format{Compression: snapshot.Compression{Method: snapshot.Zstd}},
	})
	k.taken()
	o := executor.Options{Tags: []string{k.host + "/app"}, Format: image.Format{DockerTypes: true}}
	_, err := k.build(t.Context(), "FROM HOST/zstd\nRUN b=1\n", o)
	if err == nil || !strings.Contains(err.Error(), "Dockerfile:1: FROM") || !strings.Contains(err.Error(), "force-compression") {
		t.Errorf("said %v", err)
	}
	if ran := k.taken(); len(ran) > 0 {
		t.Errorf("ran %q", ran)
	}
	o.Format.Recompress = true
	k.mustBuild("FROM HOST/zstd\nRUN b=1\n", o)
	if got := layerTypes(k.manifest(k.host + "/app")); got != dockerGzip+" "+dockerGzip {
		t.Errorf("layers %s", got)
	}
}

// A layer of the base that isn't what its config says is found out before it is
// called by a new name.
func TestRecompressedLies(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	ref := k.base("base", map[string]string{"b": "b"})
	img, err := remote.Image(k.ref(ref))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.RootFS.DiffIDs[0].Hex = strings.Repeat("0", 64)
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(k.ref(ref), img); err != nil {
		t.Fatal(err)
	}
	_, err = k.build(t.Context(), "FROM HOST/base\nLABEL a=b\n", executor.Options{
		Tags: []string{k.host + "/app"}, Format: image.Format{Compression: snapshot.Compression{Method: snapshot.Zstd}, Recompress: true},
	})
	if err == nil || !strings.Contains(err.Error(), "the image says DiffID") || k.exists(k.host+"/app") {
		t.Errorf("said %v", err)
	}
}

// Several platforms make an index over a manifest each. What they have in common
// runs once, and the index is the last thing that is sent.
func TestIndex(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(ctx context.Context, p *sandbox.Process) error {
		p.Args = slices.Clone(p.Args)
		for _, kv := range p.Env {
			if value, ok := strings.CutPrefix(kv, "TARGETARCH="); ok {
				p.Args[len(p.Args)-1] = strings.ReplaceAll(p.Args[len(p.Args)-1], "$TARGETARCH", value)
			}
		}
		return shell(ctx, p)
	})
	k.base("base", map[string]string{"b": "b"})
	var sent []string
	k.requests = func(r *http.Request) int {
		if r.Method == http.MethodPut {
			k.mu.Lock()
			defer k.mu.Unlock()
			what, _, _ := strings.Cut(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:], ":")
			if strings.Contains(r.URL.Path, "/uploads/") {
				what = "blob"
			}
			sent = append(sent, what)
		}
		return 0
	}
	const text = `FROM --platform=$BUILDPLATFORM HOST/base AS tools
RUN tool=1
FROM tools AS cross
ARG TARGETARCH
RUN arch=$TARGETARCH
FROM scratch
COPY --from=cross /arch /
COPY --from=tools /tool /
LABEL a b
`
	for _, noCache := range []bool{false, true} {
		sent = nil
		r, err := k.buildFor(text, executor.Options{Tags: []string{k.host + "/app:1"}, NoCache: noCache}, linuxAMD64, linuxARM64, linuxARMv7)
		if err != nil {
			t.Fatal(err)
		}
		titles, warnings := k.shown()
		if ran := k.taken(); len(ran) != 4 || !slices.Contains(ran, "tool=1") {
			t.Errorf("ran %q", ran)
		}
		for _, want := range []string{
			"[linux/amd64 internal] load metadata for " + k.host + "/base:latest", "[linux/amd64 tools 2/2] RUN tool=1",
			"[linux/amd64->arm/v7 cross 1/1] RUN arch=arm", "[linux/arm/v7 stage-2 1/2] COPY --from=cross /arch /",
		} {
			if n := len(slices.DeleteFunc(slices.Clone(titles), func(s string) bool { return s != want })); n != 1 {
				t.Errorf("%q is shown %d times of %q", want, n, titles)
			}
		}
		if len(warnings) != 1 {
			t.Errorf("warnings %q", warnings)
		}
		if n := len(sent); n < 4 || sent[n-1] != "1" || !slices.Equal(sent[n-4:n-1], []string{"sha256", "sha256", "sha256"}) ||
			slices.Contains(sent[:n-4], "sha256") {
			t.Errorf("sent %q", sent)
		}
		var index ocispec.Index
		k.document(k.host+"/app:1", &index)
		if index.MediaType != ocispec.MediaTypeImageIndex || r.Manifest.MediaType != index.MediaType || r.Config != "" || len(index.Manifests) != 3 {
			t.Fatalf("index %+v, result %+v", index, r)
		}
		for i, p := range []ocispec.Platform{linuxAMD64, linuxARM64, linuxARMv7} {
			d := index.Manifests[i]
			if d.Platform.Architecture != p.Architecture || d.Platform.Variant != p.Variant || d.MediaType != ocispec.MediaTypeImageManifest {
				t.Errorf("entry %+v", d)
			}
			img, files := k.pull(k.host + "/app@" + d.Digest.String())
			if want := map[string]string{"/arch": p.Architecture, "/tool": "1"}; !maps.Equal(files, want) {
				t.Errorf("%s holds %v", p.Architecture, files)
			}
			if cfg, err := img.ConfigFile(); err != nil || cfg.Architecture != p.Architecture || cfg.Variant != p.Variant {
				t.Errorf("config %+v, %v", cfg, err)
			}
		}
	}
	k.clean()
}

// shown returns the titles and the warnings of the progress.
func (k *kit) shown() (titles, warnings []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.events {
		switch e.Kind {
		case event.Start:
			titles = append(titles, e.Name)
		case event.Warning:
			warnings = append(warnings, e.Name)
		case event.Log, event.Status, event.Done, event.Cache:
		}
	}
	return titles, warnings
}

// A failure on one platform leaves no tag, and is told of once.
func TestIndexFails(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	_, err := k.buildFor("FROM --platform=$BUILDPLATFORM HOST/base\nARG TARGETARCH\nRUN one=$TARGETARCH fail\n",
		executor.Options{Tags: []string{k.host + "/app:1"}}, linuxAMD64, linuxARM64)
	if err == nil || strings.Count(err.Error(), "Dockerfile:3") != 1 || k.exists(k.host+"/app:1") {
		t.Errorf("said %v", err)
	}
	failed := 0
	k.mu.Lock()
	for _, e := range k.events {
		if e.Kind == event.Done && e.Err != "" && e.Err != "canceled" {
			failed++
			if strings.Contains(e.Err, "Dockerfile:") {
				t.Errorf("a step shows another's error: %s", e.Err)
			}
		}
	}
	k.mu.Unlock()
	if failed == 0 {
		t.Error("no step shows the error")
	}
	k.clean()
}

func TestDockerList(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	dir := t.TempDir()
	writeTree(t, dir, map[string]string{"a": "1"})
	_, err := k.buildFor("FROM scratch\nCOPY a /\n", executor.Options{
		Context: dir, Tags: []string{k.host + "/app:1"}, Format: image.Format{DockerTypes: true},
	}, linuxAMD64, linuxARM64)
	if err != nil {
		t.Fatal(err)
	}
	var list ocispec.Index
	k.document(k.host+"/app:1", &list)
	if list.MediaType != string(types.DockerManifestList) || len(list.Manifests) != 2 || list.Manifests[1].MediaType != dockerManifest {
		t.Errorf("list %+v", list)
	}
	if got := layerTypes(k.manifest(k.host + "/app@" + list.Manifests[1].Digest.String())); got != dockerGzip {
		t.Errorf("layers %s", got)
	}
}

// Annotations are on what they name; a base's are not the image's.
func TestAnnotations(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	note := func(on image.AnnotationPlace, p *ocispec.Platform, key, value string) image.Annotation {
		return image.Annotation{On: on, Platform: p, Key: key, Value: value}
	}
	index := k.host + "/base"
	layout := filepath.Join(t.TempDir(), "layout")
	all := image.Format{Annotations: []image.Annotation{
		note("", &linuxARM64, "who", "arm"), note("", nil, "who", "all"), note("", nil, "caller", "format"),
		note(image.OnManifestDescriptor, nil, "entry", "e"), note(image.OnIndex, nil, "whole", "w"),
		note(image.OnIndexDescriptor, nil, "top", "t"),
	}}
	r, err := k.buildFor("FROM scratch\nLABEL a=b\n", executor.Options{
		Tags: []string{index}, Format: all,
		Outputs: []image.Output{{Type: image.OutputOCI, Dir: true, Dest: layout, Format: all}},
	}, linuxAMD64, linuxARM64)
	if err != nil {
		t.Fatal(err)
	}
	var got ocispec.Index
	k.document(index, &got)
	check := func(what string, got, want map[string]string) {
		t.Helper()
		if !maps.Equal(got, want) {
			t.Errorf("%s has %v, want %v", what, got, want)
		}
	}
	check("the index", got.Annotations, map[string]string{"whole": "w"})
	check("an entry", got.Manifests[0].Annotations, map[string]string{"entry": "e"})
	check("the result", r.Manifest.Annotations, map[string]string{"top": "t"})
	for i, who := range []string{"all", "arm"} {
		m := k.manifest(index + "@" + got.Manifests[i].Digest.String())
		check("the manifest", m.Annotations, map[string]string{"who": who, "caller": "format"})
	}
	var top ocispec.Index
	readJSON(t, filepath.Join(layout, "index.json"), &top)
	check("the layout", top.Manifests[0].Annotations, map[string]string{"top": "t"})

	k.mustBuild("FROM HOST/base\nLABEL c=d\n", executor.Options{Tags: []string{k.host + "/app"}})
	check("an image over it", k.manifest(k.host+"/app").Annotations, nil)
}

// What no image can be like is refused before anything happens, with what to do.
func TestFormatsRefused(t *testing.T) {
	t.Parallel()
	ten := 10
	one, two := []ocispec.Platform{linuxAMD64}, []ocispec.Platform{linuxAMD64, linuxARM64}
	note := func(on image.AnnotationPlace, p *ocispec.Platform) []image.Annotation {
		return []image.Annotation{{On: on, Platform: p, Key: "k"}}
	}
	for _, tt := range []struct {
		o       executor.Options
		targets []ocispec.Platform
		want    string // "": nothing is wrong
	}{
		{executor.Options{}, one, ""},
		{executor.Options{Format: image.Format{Compression: snapshot.Compression{Level: &ten}}}, one, "want 0 to 9"},
		{executor.Options{Format: image.Format{Compression: snapshot.Compression{Method: snapshot.Zstd, Level: &ten}}}, one, ""},
		{executor.Options{Format: image.Format{Compression: snapshot.Compression{Method: "lz4"}}}, one, "want gzip, zstd or uncompressed"},
		{executor.Options{Format: image.Format{DockerTypes: true, Compression: snapshot.Compression{Method: snapshot.Zstd}}}, one, "use OCI media types"},
		{executor.Options{Format: image.Format{Annotations: note(image.OnIndex, nil)}}, one, "annotate the manifest"},
		{executor.Options{Format: image.Format{Annotations: note(image.OnIndex, nil)}}, two, ""},
		{executor.Options{Format: image.Format{Annotations: note(image.OnIndex, &linuxARM64)}}, two, "for all platforms"},
		{executor.Options{Format: image.Format{Annotations: note("", &linuxARMv7)}}, two, "platform linux/arm/v7 is not built"},
		{executor.Options{Format: image.Format{DockerTypes: true, Annotations: note("", nil)}}, two, ""},
		{executor.Options{Format: image.Format{DockerTypes: true, Annotations: note(image.OnManifestDescriptor, nil)}}, two, "use OCI media types"},
		{executor.Options{Outputs: []image.Output{{Type: image.OutputDocker}}}, one, ""},
		{executor.Options{Outputs: []image.Output{{Type: image.OutputDocker}}}, two, "use type=oci"},
		// Of files the format doesn't matter.
		{executor.Options{
			Format:  image.Format{Compression: snapshot.Compression{Method: "lz4"}},
			Outputs: []image.Output{{Type: image.OutputLocal}},
		}, one, ""},
	} {
		err := tt.o.Check(tt.targets)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v for %d: %v, want %q", tt.o, len(tt.targets), err, tt.want)
		}
	}
}

// Files for several platforms lie beside each other.
func TestFilesForPlatforms(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	dir, dest := t.TempDir(), filepath.Join(t.TempDir(), "out")
	writeTree(t, dir, map[string]string{"arm64": "eight", "arm": "seven"})
	_, err := k.buildFor("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /file\n", executor.Options{
		Context: dir, Outputs: []image.Output{{Type: image.OutputLocal, Dest: dest}},
	}, linuxARM64, linuxARMv7)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"linux_arm64/file": "eight", "linux_arm_v7/file": "seven"} {
		if got := readFile(t, filepath.Join(dest, name)); got != want {
			t.Errorf("%s holds %q", name, got)
		}
	}
}

// Without tags there is only the digest to name the image by.
func TestPushByDigest(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	r := k.mustBuild("FROM scratch\nLABEL a=b\n", executor.Options{Tags: []string{k.host + "/app"}, ByDigest: true})
	if k.exists(k.host+"/app") || !k.exists(k.host+"/app@"+r.Manifest.Digest.String()) {
		t.Error("not pushed by digest alone")
	}
}
