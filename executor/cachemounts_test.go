package executor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// hoard is a run function that writes one line about what it finds on the mount /c
// into the image, as /found, and leaves a file of its own there.
func hoard(ctx context.Context, p *sandbox.Process) error {
	i := slices.IndexFunc(p.Mounts, func(m sandbox.Mount) bool { return m.Target == "/c" })
	if i < 0 {
		return shell(ctx, p)
	}
	dir := p.Mounts[i].Source
	found := ""
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		found += fmt.Sprintf("%s %s %d:%d;", strings.TrimPrefix(path, dir), fi.Mode(), st.Uid, st.Gid)
		return nil
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(p.Root, "found"), []byte(found), 0o644); err != nil {
		return err
	}
	file := filepath.Join(dir, p.Args[len(p.Args)-1])
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte("kept"), 0o600); err != nil {
		return err
	}
	if err := os.Chown(file, 33, 44); err != nil {
		return err
	}
	if err := unix.Chmod(file, 0o4711); err != nil {
		return err
	}
	if err := os.Chown(dir, 1000, 50); err != nil {
		return err
	}
	return unix.Chmod(dir, 0o1770)
}

const hoarded = " dtrwxrwx--- 1000:50;/d drwxr-x--- 0:0;/d/one urwx--x--x 33:44;"

// found returns what the step of the image under ref has found on its mount.
func (k *kit) found(ref string) string {
	k.t.Helper()
	_, files := k.pull(ref)
	return files["/found"]
}

// A cache mount comes to another machine before the first step that uses it, with owners
// and modes, and only if one does. A machine that has the mount keeps its own.
func TestCacheMountsOnAnotherMachine(t *testing.T) {
	t.Parallel()
	for name, where := range map[string]func(k *kit) (cache.Target, cache.Source){
		"registry": func(k *kit) (cache.Target, cache.Source) {
			return cache.Target{Ref: k.host + "/cache:1"}, cache.Source{Ref: k.host + "/cache:1"}
		},
		"directory": func(k *kit) (cache.Target, cache.Source) {
			dir := filepath.Join(k.t.TempDir(), "cache")
			return cache.Target{Dir: dir, Tag: "latest"}, cache.Source{Layout: &archive.LayoutImage{Dir: dir}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, hoard)
			to, from := where(k)
			to.Mounts = []string{"go"}
			text := func(file string) string {
				return "FROM scratch\nRUN --mount=type=cache,id=go,target=/c --mount=type=cache,target=/other " + file + "\n"
			}
			app := k.host + "/app:1"
			k.mustBuild(text("d/one"), executor.Options{Tags: []string{app}, CacheTo: []cache.Target{to}})
			if got := k.found(app); got != " drwxr-xr-x 0:0;" {
				t.Errorf("the first found %q", got)
			}

			// All is known: the blob of the mount stays where it is, and in the cache.
			k.elsewhere()
			var came atomic.Int64
			k.requests = func(r *http.Request) int {
				if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/cache/blobs/") {
					came.Add(1)
				}
				return 0
			}
			o := executor.Options{Tags: []string{app}, CacheFrom: []cache.Source{from}, CacheTo: []cache.Target{to}}
			k.mustBuild(text("d/one"), o)
			if warned, ran := k.warnings(), k.taken(); len(ran) > 0 || came.Load() > 1 || len(warned) > 0 {
				t.Errorf("ran %q, %d blobs of the cache came, warned %q", ran, came.Load(), warned)
			}
			k.requests = nil

			k.elsewhere()
			o.CacheTo = nil
			k.mustBuild(text("two"), o)
			if got := k.found(app); got != hoarded {
				t.Errorf("elsewhere it found %q, want %q", got, hoarded)
			}
			k.mustBuild(text("three"), o)
			if got := k.found(app); !strings.Contains(got, "/two ") {
				t.Errorf("with a mount of its own it found %q", got)
			}
			k.clean()
		})
	}
}

// The bytes of the layer of a mount say nothing about the machine it was made on.
func TestCacheMountLayerIsReproducible(t *testing.T) {
	t.Parallel()
	at := time.Unix(1_500_000_000, 0)
	k := newKit(t, func(_ context.Context, p *sandbox.Process) error {
		for _, name := range []string{"b", "a"} {
			file := filepath.Join(p.Mounts[0].Source, name)
			if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
				return err
			}
			if err := os.Chtimes(file, at, at); err != nil {
				return err
			}
		}
		return nil
	})
	var layers []digest.Digest
	for i := range 2 {
		ref := fmt.Sprintf("%s/cache:%d", k.host, i)
		k.elsewhere()
		k.mustBuild("FROM scratch\nRUN --mount=type=cache,target=/c x\n", executor.Options{
			CacheTo: []cache.Target{{Ref: ref, Mounts: []string{"/c"}}},
		})
		m, _ := k.cacheManifest(ref)
		layers = append(layers, m.Layers[len(m.Layers)-1].Digest)
	}
	if layers[0] != layers[1] {
		t.Errorf("layers %s", layers)
	}
}

// An ID that no step uses, and a mount that can't be read or made, cost a warning.
func TestBadCacheMounts(t *testing.T) {
	t.Parallel()
	k := newKit(t, hoard)
	ref, app := k.host+"/cache:1", k.host+"/app:1"
	text := func(file string) string { return "FROM scratch\nRUN --mount=type=cache,id=go,target=/c " + file + "\n" }
	k.mustBuild(text("one"), executor.Options{CacheTo: []cache.Target{{Ref: ref, Mounts: []string{"no", "go"}}}})
	if warned := k.warnings(); len(warned) != 1 || !strings.Contains(warned[0], "ID no") {
		t.Errorf("warned %q", warned)
	}

	manifest, config := k.cacheManifest(ref)
	push, err := k.builder.Registry.Push(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	// put replaces the cache.
	put := func(m ocispec.Manifest, config []byte) {
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
	}
	garbage := []byte("no archive")
	m := manifest
	m.Layers = slices.Clone(m.Layers)
	last := &m.Layers[len(m.Layers)-1]
	last.Digest, last.Size = digest.FromBytes(garbage), int64(len(garbage))
	if err := push.Blob(t.Context(), *last, "", opened(garbage)); err != nil {
		t.Fatal(err)
	}
	lost := m
	lost.Layers = slices.Clone(m.Layers)
	lost.Layers[len(m.Layers)-1].Digest = digest.FromString("lost")

	o := executor.Options{Tags: []string{app}, CacheFrom: fromRef(ref)}
	for name, tt := range map[string]struct {
		manifest       ocispec.Manifest
		old, new, want string
	}{
		"garbage":    {manifest: m, want: "it begins anew"},
		"a lost one": {manifest: lost, want: "it begins anew"},
		"a layer":    {manifest: manifest, old: `"layer":1,"owner"`, new: `"layer":7,"owner"`, want: "mounts[0].layer 7"},
		"a key":      {manifest: manifest, old: `"mounts":[{"id":"go","key":"sha256:`, new: `"mounts":[{"id":"go","key":"../`, want: "mounts[0].key"},
	} {
		changed := strings.Replace(string(config), tt.old, tt.new, 1)
		if tt.old != "" && changed == string(config) {
			t.Fatalf("no %s in %s", tt.old, config)
		}
		put(tt.manifest, []byte(changed))
		k.elsewhere()
		k.mustBuild(text("two"), o)
		if warned := k.warnings(); len(warned) != 1 || !strings.Contains(warned[0], tt.want) {
			t.Errorf("%s: warned %q, want %q", name, warned, tt.want)
		}
		if got := k.found(app); got != " drwxr-xr-x 0:0;" {
			t.Errorf("%s: found %q", name, got)
		}
	}
	k.clean()
}

// A cache with another SOURCE_DATE_EPOCH serves with its mounts, which are no part of an
// image.
func TestCacheMountsOfAnotherEpoch(t *testing.T) {
	t.Parallel()
	k := newKit(t, hoard)
	ref, app := k.host+"/cache:1", k.host+"/app:1"
	const text = "FROM scratch\nRUN --mount=type=cache,id=go,target=/c d/one\n"
	early, late := time.Unix(1_000_000, 0), time.Unix(2_000_000, 0)
	k.epoch = &early
	k.mustBuild(text, executor.Options{CacheTo: []cache.Target{{Ref: ref, Mounts: []string{"go"}}}})
	k.elsewhere()
	k.epoch = &late
	k.mustBuild(text, executor.Options{Tags: []string{app}, CacheFrom: fromRef(ref)})
	if ran, got := k.taken(), k.found(app); len(ran) != 1 || got != hoarded {
		t.Errorf("ran %q, found %q", ran, got)
	}
}
