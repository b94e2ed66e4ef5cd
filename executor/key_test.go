package executor_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestKeysAreFramed(t *testing.T) {
	t.Parallel()
	keys := map[string]string{
		"kind a":        executor.KeyOf("a"),
		"kind b":        executor.KeyOf("b"),
		"empty value":   executor.KeyOf("a", ""),
		"ab c":          executor.KeyOf("a", "ab", "c"),
		"a bc":          executor.KeyOf("a", "a", "bc"),
		"abc":           executor.KeyOf("a", "abc"),
		"lists ab|c":    executor.KeyOfLists([]string{"a", "b"}, []string{"c"}),
		"lists a|bc":    executor.KeyOfLists([]string{"a"}, []string{"b", "c"}),
		"lists abc|":    executor.KeyOfLists([]string{"a", "b", "c"}, nil),
		"lists |abc":    executor.KeyOfLists(nil, []string{"a", "b", "c"}),
		"kind with NUL": executor.KeyOf("a\x00b"),
	}
	seen := make(map[string]string)
	for name, key := range keys {
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have the same key", name, other)
		}
		seen[key] = name
	}
}

// framed is the key of values as key.go has it.
func framed(values ...string) string {
	var all []byte
	for _, v := range values {
		all = append(binary.BigEndian.AppendUint64(all, uint64(len(v))), v...)
	}
	return digest.FromBytes(all).String()
}

// What is known under a key that was made in another way, or from files that were
// hashed in another way, is never found.
func TestKeysHaveVersions(t *testing.T) {
	t.Parallel()
	want := framed("bob.key.v3 "+filecopy.DigestVersion, "kind", "value")
	if got := executor.KeyOf("kind", "value"); got != want {
		t.Errorf("the key is %s, want %s", got, want)
	}
}

// Every kind of record that a build leaves has its version.
func TestRecordsHaveVersions(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	dir := contextDir(t, map[string]string{"f": "f"})
	k.mustBuild("FROM HOST/base AS a\nRUN x=1\nFROM HOST/base\nCOPY f /\nCOPY --from=a x /\nRUN --mount=type=bind,target=/m --mount=type=bind,from=a,source=x,target=/n y=1\n",
		executor.Options{Context: dir, CacheTo: []executor.CacheTarget{{Ref: k.host + "/cache:1"}}})
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
		executor.UlimitKeyOf(),
		executor.UlimitKeyOf(sandbox.Ulimit{Name: "a"}),
		executor.UlimitKeyOf(sandbox.Ulimit{Name: "a", Soft: 1}),
		executor.UlimitKeyOf(sandbox.Ulimit{Name: "a", Hard: 1}),
		executor.UlimitKeyOf(sandbox.Ulimit{Name: "a"}, sandbox.Ulimit{Name: "b"}),
		executor.PlatformKeyOf(ocispec.Platform{}),
		executor.PlatformKeyOf(ocispec.Platform{OS: "a"}),
		executor.PlatformKeyOf(ocispec.Platform{Architecture: "a"}),
		executor.PlatformKeyOf(ocispec.Platform{Variant: "a"}),
		executor.PlatformKeyOf(ocispec.Platform{OSVersion: "a"}),
		executor.PlatformKeyOf(ocispec.Platform{OSFeatures: []string{"a"}}),
		executor.PlatformKeyOf(ocispec.Platform{OSFeatures: []string{"a", "b"}}),
	} {
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
	}
}
