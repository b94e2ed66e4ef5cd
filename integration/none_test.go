package integration_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// runs matches a Dockerfile with a command to run.
var runs = regexp.MustCompile(`(?im)^\s*(onbuild\s+)?run\b`)

// TestWithoutIsolation builds every case that runs nothing with namespaces, and without
// them as a user that can nothing else: both make the same manifest.
func TestWithoutIsolation(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("testdata/cases")
	check(t, err)
	for _, e := range entries {
		source := filepath.Join("testdata/cases", e.Name())
		dockerfile, err := os.ReadFile(filepath.Join(source, "Dockerfile"))
		check(t, err)
		if runs.Match(dockerfile) {
			continue
		}
		t.Run(e.Name(), func(t *testing.T) {
			t.Parallel()
			c := newCase(t, source)
			build := func(cache string, env ...string) harness.Result {
				args := append([]string{
					"build", "--progress=plain", "-t", c.ref, "-f", "Dockerfile", "--build-arg=SOURCE_DATE_EPOCH=1600000000",
					"--cache-dir=" + filepath.Join(c.dir, cache),
				}, c.flags...)
				return c.run(harness.Invocation{Args: append(args, "context"), Env: env})
			}
			with := build("with")
			without := build("without", "BOB_ISOLATION=none")
			if with.Code != 0 || without.Code != 0 {
				t.Fatalf("exit codes %d and, without isolation, %d\n%s\n%s", with.Code, without.Code, with.Stderr, without.Stderr)
			}
			if strings.TrimSpace(with.Stdout) != strings.TrimSpace(without.Stdout) {
				t.Errorf("with isolation %s, without %s", with.Stdout, without.Stdout)
			}
		})
	}
}
