package executor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/sandbox"
)

// The steps of a stage that is to be built anew run, and so does what lies on them or
// sees all of them. Copies of what came out the same are known.
func TestNoCacheOfStages(t *testing.T) {
	t.Parallel()
	var n atomic.Int64 // other content each time
	k := newKit(t, func(_ context.Context, p *sandbox.Process) error {
		name := p.Args[len(p.Args)-1]
		return os.WriteFile(filepath.Join(p.Root, name), fmt.Append(nil, n.Add(1)), 0o644)
	})
	k.base("base", map[string]string{"b": "b"})
	const text = `FROM HOST/base AS one
RUN one
FROM HOST/base AS two
RUN two
FROM one AS above
RUN above
FROM HOST/base AS copied
COPY --from=one /one /copy
RUN copied
FROM HOST/base AS mounted
RUN --mount=from=one,target=/m mounted
FROM HOST/base
COPY --from=one /b /same
RUN last
COPY --from=two /two /
COPY --from=above /above /one /above/
COPY --from=one /one /
COPY --from=copied /copied /copy /
COPY --from=mounted /mounted /
`
	o := executor.Options{Tags: []string{k.host + "/app:1"}}
	all := []string{"above", "copied", "last", "mounted", "one", "two"}
	build := func(want []string, noCache ...string) map[string]string {
		t.Helper()
		k.reopen()
		k.mustBuildWith(text, o, dockerfile.Options{NoCache: noCache})
		if ran := k.taken(); !slices.Equal(ran, want) {
			t.Fatalf("with --no-cache-filter of %q ran %q, want %q", noCache, ran, want)
		}
		_, files := k.pull(k.host + "/app:1")
		if files["/one"] != files["/copy"] || files["/one"] != files["/above/one"] {
			t.Errorf("files of several builds in one image: %v", files)
		}
		return files
	}
	first := build(all)
	second := build([]string{"above", "copied", "mounted", "one"}, "ONE")
	if first["/one"] == second["/one"] || first["/two"] != second["/two"] || first["/last"] != second["/last"] {
		t.Errorf("%v, then %v", first, second)
	}
	build(nil)
	build([]string{"last"}, "5")
	build(nil)
}

// What lies on a step whose result was lost, and that comes out differently, is made
// anew with it.
func TestNoLayerOverAnother(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	k := newKit(t, func(_ context.Context, p *sandbox.Process) error {
		return os.WriteFile(filepath.Join(p.Root, p.Args[len(p.Args)-1]), fmt.Append(nil, n.Add(1)), 0o644)
	})
	k.base("base", map[string]string{"b": "b"})
	below := "FROM HOST/base AS below\nRUN x\n"
	text := below + "FROM below\nRUN y\n"
	k.mustBuild(text, executor.Options{})
	k.mustBuildWith(below, executor.Options{}, dockerfile.Options{NoCache: []string{"below"}})
	k.taken()
	k.mustBuild(text, executor.Options{})
	if ran := strings.Join(k.taken(), " "); ran != "y" {
		t.Errorf("ran %q, want y", ran)
	}
}
