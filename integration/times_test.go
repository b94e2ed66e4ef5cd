package integration_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bobbuild/bob/integration/harness"
)

// TestTimes: files keep the context's times, to the nanosecond, and copies
// between stages keep theirs.
func TestTimes(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{
		"context/Dockerfile": "FROM $REGISTRY/busybox AS one\nCOPY . /c/\nRUN touch -d @1500000000 /c/new\nFROM scratch\nCOPY --from=one /c /d\n",
		"context/f":          "f\n", "context/dir/g": "g\n",
	})
	want := time.Unix(1600000000, 123456789)
	for _, path := range []string{"context/dir/g", "context/f", "context/dir"} {
		check(t, os.Chtimes(filepath.Join(b.dir, path), want, want))
	}
	b.build()
	image, err := lab.Pull(t.Context(), b.ref)
	check(t, err)
	tree, err := harness.Flatten(image.Layers)
	check(t, err)
	for path, want := range map[string]time.Time{"d/f": want, "d/dir/g": want, "d/dir": want, "d/new": time.Unix(1500000000, 0)} {
		if e := tree[path]; e == nil || !e.ModTime.Equal(want) {
			t.Errorf("%s has %+v, want time %v", path, e, want)
		}
	}
}

// TestSameTwice: two builds of the same in fresh caches give the same files
// (and, where no RUN and no clock takes part, the same layers).
func TestSameTwice(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{
		"context/Dockerfile": "FROM $REGISTRY/busybox\nCOPY --chmod=750 dir/ /etc/\n", "context/dir/a": "a\n", "context/dir/b/c": "c\n",
	})
	var layers []string
	for _, n := range []string{"1", "2"} {
		result := b.run(harness.Invocation{
			Cache: filepath.Join(b.dir, "cache"+n), Args: []string{"build", "-t", b.ref + n, "context"},
		})
		if result.Code != 0 {
			t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
		}
		image, err := lab.Pull(t.Context(), b.ref+n)
		check(t, err)
		layers = append(layers, image.Layers[len(image.Layers)-1].DiffID.String())
	}
	if layers[0] != layers[1] {
		t.Errorf("two builds gave the layers %q", layers)
	}
}
