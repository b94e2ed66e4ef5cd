package main

import (
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestFirstWrongFlagIsTold has all flags of a command wrong, in orders that have each of
// them first.
func TestFirstWrongFlagIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	none := filepath.Join(dir, "none")
	for command, wrong := range map[string][]string{
		"build": {
			"--label==x", "--build-arg==x", "--jobs=-1", "--cache-limit=x", "--timeout=-1s", "--step-timeout=-1s", "--max-unpacked-size=x",
			"--secret=x", "--ssh==x", "--allow=x", "--network=x", "--add-host=x", "--shm-size=x", "--memory=x", "--cpus=-1", "--pids-limit=-2",
			"--ulimit=x", "--emulator=x", "--iidfile=" + none + "/x", "--metadata-file=" + none + "/x", "--build-context=x", "--registries-conf=" + none,
			"--registry-ca=" + none, "--registry-cert=" + none, "--proxy=x", "--ca-bundle=" + none, "--isolation=x", "--snapshotter=x",
			"--tag=X", "--output=type=x", "--compression=x", "--compression-level=x", "--annotation=x", "--attest=x", "--provenance=x", "--sbom=x",
			"--cache-from=type=x", "--cache-to=type=x", "--platform=x/y/z/a", "--progress=x", "--call=x", "--retry-for=-1s",
		},
		"prefetch": {
			"--platform=x/y/z/a", "--progress=x", "--registries-conf=" + none, "--registry-ca=" + none, "--proxy=x", "--isolation=x", "--snapshotter=x",
			"--retry-for=-1s",
		},
		"inspect": {"--format=x", "--platform=x/y/z/a", "--registry-ca=" + none, "--proxy=x", "--registry-key=" + none},
		"doctor":  {"--format=x", "--registry-ca=" + none, "--isolation=x", "--snapshotter=x"},
		"proxy":   {"--auth=x", "--additional-auth=x", "--registry-ca=" + none, "--log-format=x"},
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			arguments := map[string][]string{"build": {dir}, "prefetch": {"x"}, "inspect": {"x"}, "proxy": {"--target-ref=x"}}[command]
			told := func(flags ...string) string {
				err := run(t.Context(), slices.Concat([]string{command}, flags, arguments), nil, io.Discard, io.Discard)
				if exitCode(err) != exitUsage {
					t.Fatalf("%q: got %v", flags, err)
				}
				return err.Error()
			}
			for i, first := range wrong {
				want := told(first)
				rest := slices.Concat(wrong[i+1:], wrong[:i])
				for range 2 {
					flags := append([]string{first}, rest...)
					if got := told(flags...); got != want {
						t.Errorf("%q: got %q, want %q", flags, got, want)
					}
					slices.Reverse(rest)
				}
			}
		})
	}
}

// Of a repeated flag it is the wrong value that counts, and not where the flag is first.
func TestFirstWrongValueIsTold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for want, args := range map[string][]string{
		"--platform": {"--label", "a=b", "--platform", "x/y/z/a", "--label", "=x"},
		"--label":    {"--platform", "linux/amd64", "--label", "=x", "--platform", "x/y/z/a"},
		"-t":         {"-t", "X", "--network=x"},
		"--network":  {"--network=x", "-tX"},
		"--jobs":     {"--jobs=1", "--jobs", "-1", "--network=x"},
	} {
		err := run(t.Context(), append([]string{"build", dir}, args...), nil, io.Discard, io.Discard)
		if err == nil || !strings.HasPrefix(err.Error(), want+" ") {
			t.Errorf("%q: got %v, want %s", args, err, want)
		}
	}
}
