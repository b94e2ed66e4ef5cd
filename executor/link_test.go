package executor_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/sandbox"
)

// TestLinkFetchesNothing copies with --link onto base images whose files nobody needs, and
// then has a command need them.
func TestLinkFetchesNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(_ context.Context, p *sandbox.Process) error {
		seen, err := os.ReadFile(filepath.Join(p.Root, "b"))
		if err != nil {
			return err
		}
		linked, err := os.ReadFile(filepath.Join(p.Root, "d/f"))
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(p.Root, "out"), append(seen, linked...), 0o600)
	})
	k.base("one", map[string]string{"b": "of one "})
	k.base("two", map[string]string{"b": "of two "})
	var layers atomic.Int32 // that were fetched
	k.requests = func(r *http.Request) int {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			layers.Add(1)
		}
		return 0
	}
	const linked = "COPY --link <<E /d/f\nlinked\nE\n"
	build := func(base, more, to string) *executor.Result {
		return k.mustBuild("FROM HOST/"+base+"\n"+linked+more, executor.Options{Tags: []string{k.host + "/" + to}})
	}

	first := build("one", "ENV a=b\n", "first:1")
	if got := layers.Load(); got != 1 { // the config of the base
		t.Errorf("%d blobs were fetched, want the config alone", got)
	}
	second := build("two", "", "second:1")
	if got := layers.Load(); got != 2 {
		t.Errorf("%d blobs were fetched, want the configs alone", got)
	}
	last := func(r *executor.Result) string { return r.Layers[len(r.Layers)-1].Digest.String() }
	if last(first) != last(second) {
		t.Errorf("over another base the layer is %s, was %s", last(second), last(first))
	}
	for to, want := range map[string]string{"first:1": "of one ", "second:1": "of two "} {
		if _, files := k.pull(k.host + "/" + to); files["/b"] != want || files["/d/f"] != "linked\n" {
			t.Errorf("%s has %q", to, files)
		}
	}

	build("one", "RUN\n", "third:1")
	if _, files := k.pull(k.host + "/third:1"); files["/out"] != "of one linked\n" {
		t.Errorf("the command has seen %q", files["/out"])
	}
	if ran := k.taken(); len(ran) != 1 {
		t.Errorf("%d commands ran, want one", len(ran))
	}
	k.reopen()
	again := build("one", "RUN\n", "third:1")
	if ran := k.taken(); len(ran) > 0 {
		t.Errorf("ran again: %q", ran)
	}
	if again.Layers[1].Digest != first.Layers[1].Digest {
		t.Errorf("the layer is %s, was %s", again.Layers[1].Digest, first.Layers[1].Digest)
	}
	k.clean()
}
