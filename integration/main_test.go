package integration_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

var (
	update      = flag.Bool("update", false, "rewrite what the cases expect by what bob did")
	allWarm     = flag.Bool("warm", false, "have TestWarm build all cases")
	withBuildah = flag.Bool("oracle", false, "compare the cases with what buildah makes of them, and report on each")
)

// lab is made by TestMain and shared by all tests.
var lab *harness.Lab

func TestMain(m *testing.M) {
	harness.Confine()
	flag.Parse()
	// A process that brings a cache to the disk would outlive the build, and its test.
	if err := os.Setenv("BOB_CACHE_SYNC", "false"); err != nil {
		panic(err)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	l, err := harness.Open(context.Background(), "bobtest")
	if err != nil {
		fmt.Fprintln(os.Stderr, "open the laboratory:", err)
		return 1
	}
	lab = l
	code := m.Run()
	if *withBuildah {
		oracle.write(os.Stdout)
	}
	if err := l.Close(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "close the laboratory:", err)
		return 1
	}
	return code
}

// check fails the test for err, or skips it if err says what the machine lacks.
func check(t testing.TB, err error) {
	t.Helper()
	if missing, ok := errors.AsType[*harness.MissingError](err); ok {
		t.Skip(missing)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A workbench is one test's own directory and what it builds into.
type workbench struct {
	t        *testing.T
	dir      string // owned by the user who runs bob
	registry *harness.Registry
	ref      string // where the test may push: a repository of its own, with a tag
}

func newWorkbench(t *testing.T) *workbench {
	t.Helper()
	if !lab.User.Ranges {
		t.Skip("user " + lab.User.Name + " has no ranges in /etc/subuid and /etc/subgid, or newuidmap is missing")
	}
	_, err := lab.Bob()
	check(t, err)
	r, err := lab.Registry()
	check(t, err)
	_, err = lab.Image(context.WithoutCancel(t.Context()), "busybox")
	check(t, err)
	dir, err := lab.TempDir(t.Name())
	check(t, err)
	b := &workbench{t: t, registry: r, dir: dir}
	b.ref = r.Prefix + "/" + strings.ToLower(strings.Map(repository, t.Name())) + ":1"
	return b
}

// repository keeps what a repository's name may hold.
func repository(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '/':
		return r
	}
	return '-'
}

// write makes files below the workbench's directory, owned by the user; a name
// that ends in a slash is a directory.
func (b *workbench) write(files map[string]string) {
	b.t.Helper()
	for name, body := range files {
		path := b.dir + "/" + name
		check(b.t, os.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o755))
		if strings.HasSuffix(name, "/") {
			continue
		}
		body = strings.ReplaceAll(body, "$REGISTRY", b.registry.Prefix)
		check(b.t, os.WriteFile(path, []byte(body), 0o644))
	}
	check(b.t, lab.User.Own(b.dir))
}

// bob runs bob in the workbench's directory, and fails the test for whatever the
// run left behind.
func (b *workbench) bob(args ...string) harness.Result {
	b.t.Helper()
	return b.run(harness.Invocation{Args: args})
}

func (b *workbench) run(i harness.Invocation) harness.Result {
	b.t.Helper()
	if i.Dir == "" {
		i.Dir = b.dir
	}
	result, left, err := lab.Run(b.t.Context(), i)
	check(b.t, err)
	for _, l := range left {
		b.t.Errorf("bob %s left %s", strings.Join(i.Args, " "), l)
	}
	return result
}

// build builds the workbench's context directory and pushes it to b.ref; it fails
// the test unless that works, and returns the digest.
func (b *workbench) build(args ...string) string {
	b.t.Helper()
	args = append([]string{"build", "--progress", "plain", "-t", b.ref, "--build-arg", "REGISTRY=" + b.registry.Prefix}, args...)
	result := b.bob(append(args, "context")...)
	if result.Code != 0 {
		b.t.Fatalf("bob %s: exit code %d\n%s", strings.Join(args, " "), result.Code, result.Stderr)
	}
	return strings.TrimSpace(result.Stdout)
}

// wantAbsent fails the test if something was pushed to b.ref.
func (b *workbench) wantAbsent() {
	b.t.Helper()
	if has(b.t, b.registry, b.ref) {
		b.t.Errorf("%s was pushed", b.ref)
	}
}

func has(t *testing.T, r *harness.Registry, ref string) bool {
	t.Helper()
	found, err := r.Has(t.Context(), ref)
	check(t, err)
	return found
}

// matches says whether pattern is in text, whatever the case of letters.
func matches(pattern, text string) bool {
	return regexp.MustCompile("(?i)" + pattern).MatchString(text)
}
