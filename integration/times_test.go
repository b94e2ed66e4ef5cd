package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// TestSameEveryTime builds the same many times: no build may lose a file, or,
// with SOURCE_DATE_EPOCH, have another digest than the first.
func TestSameEveryTime(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	_, err := lab.Image(t.Context(), "layers")
	check(t, err)
	files := map[string]string{"context/Dockerfile": `FROM $REGISTRY/layers AS made
RUN for d in a b c d; do mkdir -p /w/$d/sub; for i in $(seq 40); do echo $d > /w/$d/$i; done; done; ln /w/a/1 /w/a/linked
COPY . /w/context/
RUN rm -r /w/a/sub /w/b && mkdir /w/b && for i in $(seq 40); do echo again > /w/c/$i; rm /w/d/$i; done; echo last > /w/last
FROM $REGISTRY/busybox
COPY --from=made /w /data /
RUN cp -r /context /copied && mv /c /moved
`}
	for i := range 60 {
		files[fmt.Sprintf("context/d%d/f%d", i%7, i)] = strings.Repeat("x", i)
	}
	b.write(files)
	const times = 10
	var first harness.Tree
	var digest string
	for i := range times {
		dest := fmt.Sprintf("layout%d", i)
		run := harness.Invocation{Args: []string{"build", "--progress=plain", "--no-cache", "-o", "type=oci,tar=false,dest=" + dest, "context"}}
		clamped := i%2 == 0
		if clamped {
			run.Env = []string{"SOURCE_DATE_EPOCH=1600000000"}
		}
		result := b.run(run)
		if result.Code != 0 {
			t.Fatalf("build %d: exit code %d\n%s", i, result.Code, result.Stderr)
		}
		image, err := harness.ReadLayout(filepath.Join(b.dir, dest))
		check(t, err)
		tree, err := harness.Flatten(image.Layers)
		check(t, err)
		if i == 0 {
			first, digest = tree, image.Digest.String()
			if len(first) < 300 {
				t.Fatalf("only %d files", len(first))
			}
		}
		for _, change := range tree.Changes(first) {
			t.Errorf("build %d, compared with the first: %s", i, change)
		}
		if clamped && image.Digest.String() != digest {
			t.Errorf("build %d has the digest %s, the first has %s", i, image.Digest, digest)
		}
	}
}
