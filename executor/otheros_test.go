package executor_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/image"
	"github.com/bobbuild/bob/executor/sandbox"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A tool is built for every system by the commands of this one.
func TestOtherSystems(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(ctx context.Context, p *sandbox.Process) error {
		last := len(p.Args) - 1
		p.Args[last] = os.Expand(p.Args[last], func(name string) string {
			for _, kv := range p.Env {
				if value, ok := strings.CutPrefix(kv, name+"="); ok {
					return value
				}
			}
			return ""
		})
		return shell(ctx, p)
	})
	k.base("base", map[string]string{"b": "b"})
	const text = `FROM --platform=$BUILDPLATFORM HOST/base AS common
RUN once=1
FROM common AS build
ARG TARGETOS TARGETARCH
RUN tool=$TARGETOS-$TARGETARCH
FROM scratch
COPY --from=build /tool /bin/
ENTRYPOINT ["/bin/tool"]
`
	targets := []ocispec.Platform{
		{OS: "darwin", Architecture: "arm64"},
		{OS: "windows", Architecture: "amd64", OSVersion: "10.0.17763.1"},
		{OS: "linux", Architecture: "arm64"},
	}
	dist := t.TempDir()
	ref := k.host + "/tool:1"
	if _, err := k.buildFor(text, executor.Options{
		Tags: []string{ref}, Outputs: []image.Output{{Type: image.OutputLocal, Dest: dist}},
	}, targets...); err != nil {
		t.Fatal(err)
	}
	if ran := k.taken(); len(ran) != 4 {
		t.Errorf("ran %q", ran)
	}
	for dir, want := range map[string]string{
		"darwin_arm64": "darwin-arm64", "windows(10.0.17763.1)_amd64": "windows-amd64", "linux_arm64": "linux-arm64",
	} {
		if got := readFile(t, filepath.Join(dist, dir, "bin", "tool")); got != want {
			t.Errorf("%s: got %q", dir, got)
		}
	}
	index, err := remote.Index(k.ref(ref))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range manifest.Manifests {
		img, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		want := targets[i]
		for _, got := range []v1.Platform{*m.Platform, {OS: config.OS, Architecture: config.Architecture, OSVersion: config.OSVersion}} {
			if got.OS != want.OS || got.Architecture != want.Architecture || got.OSVersion != want.OSVersion {
				t.Errorf("%s: got %+v", want.OS, got)
			}
		}
	}
}

// What takes another system than Linux is refused at its line, before anything runs.
func TestOtherSystemsRefused(t *testing.T) {
	t.Parallel()
	windows := ocispec.Platform{OS: "windows", Architecture: "amd64"}
	for name, tt := range map[string]struct {
		text, want string // "" for what is built
	}{
		"RUN":             {"FROM --platform=linux/amd64 HOST/base AS a\nRUN a=1\nFROM scratch\nCOPY --from=a a /\nRUN x=1\n", "Dockerfile:5: RUN: commands for windows/amd64 can't be run here"},
		"a configuration": {"FROM HOST/win\nENV A=b\nWORKDIR \\\\\nUSER u\n", ""},
		"COPY to it":      {"FROM HOST/win\nENV A=b\nCOPY <<f /\nf\n", "Dockerfile:3: COPY"},
		"WORKDIR in it":   {"FROM HOST/win AS a\nENV A=b\nFROM a\nWORKDIR /x\n", "Dockerfile:4: WORKDIR"},
		"COPY from it":    {"FROM scratch\nCOPY --from=HOST/win /a /\n", "Dockerfile:2: COPY"},
		"from its stage":  {"FROM HOST/win AS a\nFROM scratch\nCOPY --from=a /a /\n", "Dockerfile:3: COPY"},
		"a mount of it":   {"FROM HOST/win AS a\nFROM --platform=linux/amd64 HOST/base AS b\nRUN --mount=from=a,target=/m x=1\nFROM scratch\nCOPY --from=b b /\n", "Dockerfile:3: RUN"},
		"not needed":      {"FROM HOST/win AS a\nRUN x=1\nFROM scratch\nCOPY <<f /\nf\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, shell)
			k.base("base", map[string]string{"b": "b"})
			k.base("win", map[string]string{"Files/a": "a"})
			k.otherOS("win")
			_, err := k.buildWith(t.Context(), tt.text, executor.Options{}, dockerfile.Options{TargetPlatform: windows, PlatformGiven: true})
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "windows") {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			if ran := k.taken(); len(ran) > 0 {
				t.Errorf("ran %q", ran)
			}
		})
	}
}

// otherOS makes the image of repo one for Windows.
func (k *kit) otherOS(repo string) {
	k.t.Helper()
	ref := k.ref(k.host + "/" + repo + ":latest")
	img, err := remote.Image(ref)
	if err != nil {
		k.t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		k.t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS = "windows"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		k.t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		k.t.Fatal(err)
	}
}
