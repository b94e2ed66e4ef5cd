package executor_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A poisoned is a cache in a directory that somebody has changed.
type poisoned struct {
	t        *testing.T
	dir      string
	manifest ocispec.Manifest
	config   map[string]any
}

// object returns the object at the key of the config, number i of its list.
func (p *poisoned) object(key string, i int) map[string]any {
	p.t.Helper()
	list, ok := p.config[key].([]any)
	if !ok || len(list) <= i {
		p.t.Fatalf("no %s[%d] in %v", key, i, p.config)
	}
	object, ok := list[i].(map[string]any)
	if !ok {
		p.t.Fatalf("%s[%d] is no object", key, i)
	}
	return object
}

func (p *poisoned) blob(d digest.Digest) string {
	return filepath.Join(p.dir, "blobs", "sha256", d.Encoded())
}

// put writes body as a blob.
func (p *poisoned) put(mediaType string, body []byte) ocispec.Descriptor {
	p.t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
	if err := os.WriteFile(p.blob(d.Digest), body, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return d
}

// json is the text of v.
func (p *poisoned) json(v any) []byte {
	p.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

// open reads the cache in dir.
func openPoisoned(t *testing.T, dir string) *poisoned {
	t.Helper()
	p := &poisoned{t: t, dir: dir}
	var index ocispec.Index
	readJSON(t, filepath.Join(dir, "index.json"), &index)
	readJSON(t, p.blob(index.Manifests[0].Digest), &p.manifest)
	readJSON(t, p.blob(p.manifest.Config.Digest), &p.config)
	return p
}

// close writes the cache with all digests above the layers as they must be.
func (p *poisoned) close() {
	p.t.Helper()
	p.manifest.Config = p.put(p.manifest.Config.MediaType, p.json(p.config))
	d := p.put(ocispec.MediaTypeImageManifest, p.json(p.manifest))
	var index ocispec.Index
	name := filepath.Join(p.dir, "index.json")
	readJSON(p.t, name, &index)
	d.Annotations = index.Manifests[0].Annotations
	index.Manifests = []ocispec.Descriptor{d}
	if err := os.WriteFile(name, p.json(index), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// Whatever a cache says of its layers, an image holds what its steps make, and the
// build goes on with a warning.
func TestPoisonedCaches(t *testing.T) {
	t.Parallel()
	const text = "FROM HOST/base\nRUN one=1\nRUN two=2\nRUN three=3\n"
	for name, poison := range map[string]func(p *poisoned){
		"nothing":           nil,
		"a size too large":  func(p *poisoned) { p.manifest.Layers[0].Size++ },
		"a size too small":  func(p *poisoned) { p.manifest.Layers[0].Size-- },
		"a huge size":       func(p *poisoned) { p.manifest.Layers[0].Size = 1 << 62 },
		"no size":           func(p *poisoned) { p.manifest.Layers[0].Size = 0 },
		"a negative size":   func(p *poisoned) { p.manifest.Layers[0].Size = -1 },
		"an unknown digest": func(p *poisoned) { p.manifest.Layers[0].Digest = digest.FromString("x") },
		"a path as digest":  func(p *poisoned) { p.manifest.Layers[0].Digest = "sha256:../../../etc/passwd" },
		"layers swapped": func(p *poisoned) {
			l := p.manifest.Layers
			l[0], l[1] = l[1], l[0]
		},
		"DiffIDs swapped": func(p *poisoned) {
			one, two := p.object("layers", 0), p.object("layers", 1)
			one["diffID"], two["diffID"] = two["diffID"], one["diffID"]
		},
		"one layer for all": func(p *poisoned) {
			for i := range p.manifest.Layers {
				p.manifest.Layers[i] = p.manifest.Layers[0]
			}
		},
		"layers said to be others": func(p *poisoned) {
			for i := range p.manifest.Layers {
				p.manifest.Layers[i].MediaType = ocispec.MediaTypeImageLayer
			}
		},
		"other bytes": func(p *poisoned) {
			file := p.blob(p.manifest.Layers[0].Digest)
			if err := os.WriteFile(file, bytes.Repeat([]byte("x"), int(p.manifest.Layers[0].Size)), 0o600); err != nil {
				p.t.Fatal(err)
			}
		},
		"a truncated blob": func(p *poisoned) {
			if err := os.Truncate(p.blob(p.manifest.Layers[0].Digest), 10); err != nil {
				p.t.Fatal(err)
			}
		},
		"a step over itself": func(p *poisoned) {
			for i := range 3 {
				s := p.object("steps", i)
				s["below"] = p.object("layers", 0)["diffID"]
			}
		},
		"steps over nothing": func(p *poisoned) {
			for i := range 3 {
				delete(p.object("steps", i), "below")
			}
		},
		"foreign keys": func(p *poisoned) {
			for i := range 3 {
				p.object("steps", i)["key"] = digest.FromString(strings.Repeat("x", i+1))
			}
		},
		"links in a circle": func(p *poisoned) {
			a, b := digest.FromString("a"), digest.FromString("b")
			key := p.object("steps", 0)["key"]
			p.config["links"] = []any{
				map[string]any{"key": a, "to": b}, map[string]any{"key": b, "to": a}, map[string]any{"key": key, "to": key},
			}
		},
		"a huge number":       func(p *poisoned) { p.object("steps", 0)["layer"] = int64(1) << 62 },
		"a time that is none": func(p *poisoned) { p.object("steps", 0)["created"] = "10000-01-01T00:00:00Z" },
		"too many steps": func(p *poisoned) {
			one := p.object("steps", 0)
			list := []any{}
			for i := range 30_000 {
				s := maps.Clone(one)
				s["key"] = digest.FromString(strings.Repeat("x", i%100) + strings.Repeat("y", i/100))
				list = append(list, s)
			}
			p.config["steps"] = list
		},
		"depth": func(p *poisoned) {
			p.config["links"] = json.RawMessage(strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, shell)
			k.base("base", map[string]string{"b": "b"})
			dir := t.TempDir()
			k.mustBuild(text, executor.Options{CacheTo: []cache.Target{{Dir: dir, Tag: "latest"}}})
			if poison != nil {
				p := openPoisoned(t, dir)
				poison(p)
				p.close()
			}
			k.elsewhere()
			// What comes over the cached steps reads their files.
			ref := k.host + "/app:1"
			o := executor.Options{CacheFrom: []cache.Source{{Layout: &archive.LayoutImage{Dir: dir}}}, Tags: []string{ref}}
			k.mustBuild(text+"RUN four=4\n", o)
			warned := k.warnings()
			ran := k.taken()
			img, files := k.pull(ref)
			want := map[string]string{"/b": "b", "/one": "1", "/two": "2", "/three": "3", "/four": "4"}
			if !maps.Equal(files, want) {
				t.Errorf("the image has %v", files)
			}
			layers, err := img.Layers()
			if err != nil || len(layers) != 5 {
				t.Errorf("%d layers, %v", len(layers), err)
			}
			if poison == nil && (len(warned) > 0 || !slices.Equal(ran, []string{"four=4"})) || len(warned) > 3 {
				t.Errorf("ran %q, warnings %q", ran, warned)
			}
			k.clean()
		})
	}
}

// The layer of a cache mount is unpacked into the mount and nowhere else; one that can't
// be costs a warning.
func TestPoisonedCacheMounts(t *testing.T) {
	t.Parallel()
	type entries []tar.Header
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}
	}
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
	outside := t.TempDir()
	for name, tt := range map[string]struct {
		entries entries
		warned  bool
	}{
		"up":                 {entries{file("../escape"), file("../../../../../escape"), file("a/../../escape")}, false},
		"absolute":           {entries{file(filepath.Join(outside, "escape"))}, false},
		"through a link":     {entries{link("l", outside), file("l/escape")}, true},
		"through a link up":  {entries{link("l", "../../../../../.."), file("l/escape")}, false},
		"a hard link out":    {entries{{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../../../etc/passwd"}}, true},
		"a link to itself":   {entries{link("l", "l"), file("l/escape")}, true},
		"a negative time":    {entries{{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644, ModTime: time.Unix(-1<<40, 0), Format: tar.FormatGNU}}, false},
		"the directory":      {entries{link(".", outside), file("escape")}, false},
		"a file for a place": {entries{file("d"), file("d/escape")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var content bytes.Buffer
			tw := tar.NewWriter(&content)
			for _, h := range tt.entries {
				if err := tw.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			if err := tw.Close(); err != nil {
				t.Fatal(err)
			}
			k := newKit(t, hoard)
			dir := t.TempDir()
			const text = "FROM scratch\nRUN --mount=type=cache,id=go,target=/c "
			k.mustBuild(text+"one\n", executor.Options{CacheTo: []cache.Target{{Dir: dir, Tag: "latest", Mounts: []string{"go"}}}})
			p := openPoisoned(t, dir)
			p.manifest.Layers[len(p.manifest.Layers)-1] = p.put(ocispec.MediaTypeImageLayer, content.Bytes())
			p.object("layers", len(p.manifest.Layers)-1)["compression"] = "uncompressed"
			p.close()
			k.elsewhere()
			k.mustBuild(text+"two\n", executor.Options{CacheFrom: []cache.Source{{Layout: &archive.LayoutImage{Dir: dir}}}})
			if warned := k.warnings(); len(warned) > 1 || tt.warned != (len(warned) > 0) {
				t.Errorf("warned %q", warned)
			}
			for _, root := range []string{outside, k.store} {
				err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
					if err == nil && d.Name() == "escape" && !strings.Contains(path, "/caches/") {
						t.Errorf("it came to %s", path)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
			k.clean()
		})
	}
}
