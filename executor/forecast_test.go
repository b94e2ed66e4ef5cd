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

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/sandbox"
)

const chained = `FROM HOST/base AS first
RUN number
FROM HOST/base AS second
COPY --from=first /number /copied
RUN --mount=from=first,source=/number,target=/m second=2
FROM HOST/base
RUN before=1
COPY --from=second /copied /second /out/
RUN --mount=from=second,source=/copied,target=/m last=1
`

// numbers returns a run function as shell is one, whose "number" writes another number
// each time.
func numbers() func(context.Context, *sandbox.Process) error {
	var n atomic.Int64
	return func(ctx context.Context, p *sandbox.Process) error {
		if p.Args[len(p.Args)-1] != "number" {
			return shell(ctx, p)
		}
		return os.WriteFile(filepath.Join(p.Root, "number"), fmt.Append(nil, n.Add(1)), 0o644)
	}
}

// A stage whose files nobody needs isn't run, though it is forgotten. One that is needed
// is run with all that it needs in turn, whatever is remembered of them: the image has
// what they made now.
func TestForgottenStages(t *testing.T) {
	t.Parallel()
	k := newKit(t, numbers())
	k.base("base", map[string]string{"b": "b"})
	ref := k.host + "/app:1"
	build := func(text string) (ran []string, digest string, files map[string]string) {
		t.Helper()
		r := k.mustBuild(text, executor.Options{Tags: []string{ref}})
		_, files = k.pull(ref)
		return k.taken(), r.Manifest.Digest.String(), files
	}
	_, first, _ := build(chained)
	k.forget("number", "copied", "second")
	k.reopen()
	ran, again, _ := build(chained)
	if len(ran) > 0 || again != first {
		t.Errorf("with all of the result known ran %q and made %s, before %s", ran, again, first)
	}

	changed := strings.Replace(chained, "before=1", "before=2", 1)
	k.reopen()
	ran, second, files := build(changed)
	if want := []string{"before=2", "last=1", "number", "second=2"}; !slices.Equal(ran, want) {
		t.Errorf("with a change ran %q, want %q", ran, want)
	}
	if files["/out/copied"] != "2" {
		t.Errorf("the image has run %s of the first stage, want the second", files["/out/copied"])
	}
	k.reopen()
	if ran, again, _ := build(changed); len(ran) > 0 || again != second {
		t.Errorf("then ran %q and made %s, before %s", ran, again, second)
	}
}

// The stages that a step takes files from are run beside the steps before it.
func TestStagesSideBySide(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	k := newKit(t, func(ctx context.Context, p *sandbox.Process) error {
		switch p.Args[len(p.Args)-1] {
		case "in the stage":
			close(started)
		case "in the target":
			select {
			case <-started:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	k.base("base", map[string]string{"b": "b"})
	k.mustBuild("FROM HOST/base AS stage\nRUN in the stage\nFROM HOST/base\nRUN in the target\nCOPY --from=stage /b /c\n",
		executor.Options{Jobs: 2})
}

// A stage that nobody needs is not told of, but for what can be said without running it.
func TestStageThatIsNotNeeded(t *testing.T) {
	t.Parallel()
	k := newKit(t, shell)
	k.base("base", map[string]string{"b": "b"})
	text := "FROM HOST/base AS stage\nRUN built=1\nFROM HOST/base\nCOPY --from=stage /built /out/\n"
	k.mustBuild(text, executor.Options{})
	k.forget("built")
	k.reopen()
	k.taken()
	k.mustBuild(text, executor.Options{})
	for _, e := range k.events {
		if strings.Contains(e.Name, "RUN") {
			t.Errorf("shown: %q", e.Name)
		}
	}
	k.reopen()
	missing := strings.Replace(text, "HOST/base AS", "HOST/missing AS", 1)
	if _, err := k.build(t.Context(), missing, executor.Options{}); err == nil || !strings.Contains(err.Error(), "Dockerfile:1") {
		t.Errorf("with a base that isn't there: %v", err)
	}
}
