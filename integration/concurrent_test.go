package integration_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// TestConcurrentBuilds runs builds of the same and of other things at once in
// one cache, as CI does.
func TestConcurrentBuilds(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{
		"context/Dockerfile": "FROM $REGISTRY/layers\nRUN echo same > /same\nCOPY f /f\nARG N\nRUN echo $N > /n\n", "context/f": "f\n",
	})
	_, err := lab.Image(t.Context(), "layers")
	check(t, err)
	var group sync.WaitGroup
	for _, n := range []string{"1", "2", "3", "1"} {
		group.Go(func() {
			ref := b.ref + "-" + n
			r, err := lab.Start(t.Context(), harness.Invocation{
				Dir: b.dir, Args: []string{"build", "--progress=plain", "-t", ref, "--build-arg=N=" + n, "context"},
			})
			if err != nil {
				t.Error(err)
				return
			}
			if result, err := r.Wait(); err != nil || result.Code != 0 {
				t.Errorf("build %s: %v, exit code %d\n%s", n, err, result.Code, result.Stderr)
			}
			for _, p := range r.Leftovers() {
				if !strings.HasPrefix(p, "file: ") && !strings.HasPrefix(p, "mount: ") { // those of the others
					t.Error("left", p)
				}
			}
		})
	}
	group.Wait()
	for _, n := range []string{"1", "2", "3"} {
		image, err := lab.Pull(t.Context(), b.ref+"-"+n)
		check(t, err)
		tree, err := harness.Flatten(image.Layers)
		check(t, err)
		if e := tree["n"]; e == nil || e.Size != 2 {
			t.Errorf("build %s: /n is %v", n, e)
		}
		if e := tree["data/old/new"]; e == nil {
			t.Errorf("build %s: the base lost a file", n)
		}
	}
	b.wantSwept()
}
