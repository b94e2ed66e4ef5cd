package executor_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/binfmt"
	"github.com/bobbuild/bob/executor/obstacle"
)

// A plan asks for emulators of what its commands are for, all at once and before
// anything is done; what can't be run is refused at its first command.
func TestForeignCommands(t *testing.T) {
	t.Parallel()
	const text = `FROM --platform=$BUILDPLATFORM HOST/base AS native
RUN native=1
FROM scratch AS files
COPY --from=native /native /
FROM HOST/base
RUN first=1
RUN second=1
FROM files
COPY --from=2 /first /
`
	linuxARM64 := ocispec.Platform{OS: "linux", Architecture: "arm64"}
	for _, test := range []struct {
		name     string
		targets  []ocispec.Platform
		text     string
		lacking  string
		want     []string // what is asked for first
		location string
	}{
		{"both", []ocispec.Platform{linuxAMD64, linuxARM64}, text, "", []string{"amd64", "arm64"}, ""},
		{"one", []ocispec.Platform{linuxARM64}, text, "", []string{"amd64", "arm64"}, ""},
		{"refused", []ocispec.Platform{linuxAMD64, linuxARM64}, text, "arm64", []string{"amd64", "arm64"}, "Dockerfile:6: RUN: programs for arm64 can't be run here: no emulator"},
		{"natively", []ocispec.Platform{linuxARM64}, strings.ReplaceAll(text, "--from=2 /first", "--from=native /native"), "arm64", []string{"amd64"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, shell)
			k.base("base", map[string]string{"b": "b"})
			var asked [][]string
			k.builder.Emulate = func(_ context.Context, architectures []string) error {
				k.mu.Lock()
				defer k.mu.Unlock()
				asked = append(asked, architectures)
				if slices.Contains(architectures, test.lacking) {
					return &binfmt.ArchitectureError{Architecture: test.lacking, Obstacle: &obstacle.Obstacle{Why: "no emulator"}}
				}
				return nil
			}
			_, err := k.buildFor(test.text, executor.Options{Tags: []string{k.host + "/app:1"}}, test.targets...)
			switch {
			case test.location == "" && err != nil:
				t.Error(err)
			case test.location != "" && (err == nil || !strings.HasPrefix(err.Error(), test.location)):
				t.Errorf("error is %v, want %s", err, test.location)
			}
			if len(asked) == 0 || !slices.Equal(asked[0], test.want) {
				t.Errorf("asked for %q, want %q first", asked, test.want)
			}
			if ran := k.taken(); test.location != "" && len(ran) > 0 {
				t.Errorf("ran %q", ran)
			}
		})
	}
}

// A base image that isn't for the platform it was asked for is run by the emulator of
// what it is for, if there is one. Other errors than that there is none count.
func TestForeignBase(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]error{
		"emulated": nil,
		"lacking":  &binfmt.ArchitectureError{Architecture: "amd64", Obstacle: &obstacle.Obstacle{Why: "no emulator"}},
		"broken":   errors.New("broken"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, shell)
			k.base("base", map[string]string{"b": "b"}) // for amd64
			asked := false
			k.builder.Emulate = func(_ context.Context, architectures []string) error {
				if !slices.Equal(architectures, []string{"amd64"}) {
					return nil
				}
				asked = true
				return refusal
			}
			_, err := k.buildFor("FROM HOST/base\nRUN a=1\n", executor.Options{}, ocispec.Platform{OS: "linux", Architecture: "arm64"})
			if broken := name == "broken"; !asked || (err != nil) != broken {
				t.Errorf("asked for an emulator: %v, error is %v", asked, err)
			}
		})
	}
}
