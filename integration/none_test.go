package integration_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// runs matches a Dockerfile with a command to run.
var runs = regexp.MustCompile(`(?im)^\s*(onbuild\s+)?run\b`)

// TestWithoutIsolation builds every case that runs nothing with namespaces and without:
// both make the same manifest, and the latter unpacks no base that isn't read.
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
			with := c.run(harness.Invocation{Args: c.reproducible("with")})
			without := c.run(harness.Invocation{Args: c.reproducible("without"), Env: []string{"BOB_ISOLATION=none"}})
			c.sameManifest(with, without)
			stores, err := filepath.Glob(filepath.Join(c.dir, "without/ids/*-recorded"))
			check(t, err)
			if len(stores) == 0 {
				t.Error("the second build had namespaces too")
			}
			// Those of images have longer names than those of steps.
			unpacked, err := filepath.Glob(filepath.Join(c.dir, "without/ids/*/snapshots", strings.Repeat("[0-9a-f]", 64)))
			check(t, err)
			if len(unpacked) > 0 && !strings.Contains(string(dockerfile), "--from") && !strings.Contains(without.Stderr, "exporting to tar") {
				t.Errorf("unpacked for nothing: %q", unpacked)
			}
		})
	}
}

// TestWithoutAnything builds as a user that nobody knows, without capabilities and new
// privileges, where nothing but the cache can be written.
func TestWithoutAnything(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("wants to be root, to take everything from a process")
	}
	check(t, harness.Need("setpriv", "unshare"))
	const script = `mount --bind "$BOB_CACHE_DIR" "$BOB_CACHE_DIR"
mount -o remount,bind,ro /
exec setpriv --reuid=1073741831 --regid=1073741832 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"`
	for _, name := range []string{"add-archive-chown", "add-local", "copy-hardlinks", "copy-link-onto-base", "copy-over-copies"} {
		source := filepath.Join("testdata/cases", name)
		if dockerfile, err := os.ReadFile(filepath.Join(source, "Dockerfile")); err != nil || runs.Match(dockerfile) {
			t.Fatalf("the case %s runs something: %v", name, err)
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCase(t, source)
			with := c.run(harness.Invocation{Args: c.reproducible("with")})
			bob, err := lab.Bob()
			check(t, err)
			cache := filepath.Join(c.dir, "without")
			check(t, os.Mkdir(cache, 0o700))
			own := exec.CommandContext(t.Context(), "chown", "-R", "1073741831:1073741832", cache, filepath.Join(c.dir, "context"))
			check(t, own.Run())
			cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "sh", "-euc", script, "sh", bob}, c.reproducible("without")...)...)
			cmd.Dir = c.dir
			cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "BOB_ISOLATION=none", "BOB_CACHE_SYNC=false", "BOB_CACHE_DIR=" + cache, lab.NoAuth()}
			var stdout, stderr strings.Builder
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			c.sameManifest(with, harness.Result{Stdout: stdout.String(), Stderr: stderr.String()})
		})
	}
}

// TestRunWithoutIsolation says which instruction needs what isn't there.
func TestRunWithoutIsolation(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nCOPY . /\nRUN true\n"})
	r := b.run(harness.Invocation{Args: []string{"build", "--progress=plain", "context"}, Env: []string{"BOB_ISOLATION=none"}})
	if r.Code != 1 || !strings.Contains(r.Stderr, "Dockerfile:3") || !strings.Contains(r.Stderr, "RUN can't be run with --isolation none") {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
}

// reproducible returns the arguments of a build of the case with a time of its own and
// the cache of that name.
func (c *testCase) reproducible(cache string) []string {
	args := append([]string{
		"build", "--progress=plain", "-t", c.ref, "-f", "Dockerfile", "--build-arg=SOURCE_DATE_EPOCH=1600000000",
		"--cache-dir=" + filepath.Join(c.dir, cache),
	}, c.flags...)
	return append(args, "context")
}

func (c *testCase) sameManifest(with, without harness.Result) {
	c.t.Helper()
	if with.Code != 0 || without.Code != 0 {
		c.t.Fatalf("exit codes %d and, without isolation, %d\n%s\n%s", with.Code, without.Code, with.Stderr, without.Stderr)
	}
	if with.Stdout != without.Stdout {
		c.t.Errorf("with isolation %s, without %s", with.Stdout, without.Stdout)
	}
}
