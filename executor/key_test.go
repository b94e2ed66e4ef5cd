package executor_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/cache"
	"github.com/bobbuild/bob/executor/sandbox"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Every kind of record that a build leaves has its version.
func TestRecordsHaveVersions(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	dir := contextDir(t, map[string]string{"f": "f"})
	k.mustBuild("FROM HOST/base AS a\nRUN x=1\nFROM HOST/base\nCOPY f /\nCOPY --from=a x /\nRUN --mount=type=bind,target=/m --mount=type=bind,from=a,source=x,target=/n y=1\n",
		executor.Options{Context: dir, CacheTo: []cache.Target{{Ref: k.host + "/cache:1"}}})
	kinds := glob(t, filepath.Join(k.store, "records", "*"))
	if len(kinds) < 6 {
		t.Errorf("the build left %q", kinds)
	}
	for _, kind := range kinds {
		if !regexp.MustCompile(`-\d+$`).MatchString(kind) {
			t.Errorf("%s has no version", kind)
		}
	}
}

func TestMountsInKeys(t *testing.T) {
	t.Parallel()
	owner := dockerfile.MountOwner{UID: 1, GID: 2, Mode: 3}
	seen := make(map[string]string)
	add := func(name, key string) {
		if other, ok := seen[key]; ok {
			t.Errorf("%s has the key of %s", name, other)
		}
		seen[key] = name
	}
	for i, mounts := range [][]dockerfile.Mount{
		nil,
		{&dockerfile.BindMount{Target: "/a"}},
		{&dockerfile.BindMount{Target: "/b"}},
		{&dockerfile.BindMount{Target: "/a", ReadOnly: true}},
		{&dockerfile.CacheMount{ID: "/a", Target: "/a", Source: "/"}},
		{&dockerfile.CacheMount{ID: "/a", Target: "/b", Source: "/"}},
		{&dockerfile.CacheMount{ID: "/a", Target: "/a", Source: "/", Sharing: "shared"}},
		{&dockerfile.CacheMount{ID: "/a", Target: "/a", Source: "/", ReadOnly: true}},
		{&dockerfile.CacheMount{ID: "/a", Target: "/a", Source: "/", Owner: &owner}},
		{&dockerfile.CacheMount{ID: "/a", Target: "/a", Source: "/", Owner: &dockerfile.MountOwner{UID: 1, GID: 2}}},
		{&dockerfile.TmpfsMount{Target: "/a"}},
		{&dockerfile.TmpfsMount{Target: "/a", Size: 1}},
		{&dockerfile.TmpfsMount{Target: "/a", ReadOnly: true}},
		{&dockerfile.TmpfsMount{Target: "/a"}, &dockerfile.TmpfsMount{Target: "/b"}},
		{&dockerfile.TmpfsMount{Target: "/b"}, &dockerfile.TmpfsMount{Target: "/a"}},
		{&dockerfile.SecretMount{ID: "i", Target: "/a"}},
		{&dockerfile.SecretMount{ID: "j", Target: "/a"}},
		{&dockerfile.SecretMount{ID: "i", Target: "/a", Env: "E"}},
		{&dockerfile.SecretMount{ID: "i", Target: "/a", Required: true}},
		{&dockerfile.SecretMount{ID: "i", Target: "/a", Owner: owner}},
		{&dockerfile.SSHMount{ID: "i", Target: "/a"}},
		{&dockerfile.SSHMount{ID: "i", Target: "/a", Required: true}},
		{&dockerfile.SSHMount{ID: "i", Target: "/a", Owner: owner}},
	} {
		key, err := executor.MountKeyOf(mounts...)
		if err != nil {
			t.Error(err)
		}
		add(fmt.Sprint("row ", i), key)
	}
	// What is no known mount has no key, rather than that of none.
	if _, err := executor.MountKeyOf(struct{ dockerfile.Mount }{}); err == nil {
		t.Error("an unknown mount has a key")
	}
}

func TestStructsInKeys(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for _, key := range []string{
		executor.RunKeyOf(linuxAMD64),
		executor.RunKeyOf(linuxAMD64, sandbox.Ulimit{Name: "a"}),
		executor.RunKeyOf(linuxAMD64, sandbox.Ulimit{Name: "a", Soft: 1}),
		executor.RunKeyOf(linuxAMD64, sandbox.Ulimit{Name: "a", Hard: 1}),
		executor.RunKeyOf(linuxAMD64, sandbox.Ulimit{Name: "a"}, sandbox.Ulimit{Name: "b"}),
		executor.RunKeyOf(ocispec.Platform{}),
		executor.RunKeyOf(ocispec.Platform{OS: "a"}),
		executor.RunKeyOf(ocispec.Platform{Architecture: "a"}),
		executor.RunKeyOf(ocispec.Platform{Variant: "a"}),
		executor.RunKeyOf(ocispec.Platform{OSVersion: "a"}),
		executor.RunKeyOf(ocispec.Platform{OSFeatures: []string{"a"}}),
		executor.RunKeyOf(ocispec.Platform{OSFeatures: []string{"a", "b"}}),
	} {
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
	}
}
