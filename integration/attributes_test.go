package integration_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// TestContextWithoutAttributes builds what lies on a file system that has no
// extended attributes, for those who keep it on NFS.
func TestContextWithoutAttributes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting a ramfs takes root")
	}
	b := newWorkbench(t)
	for _, dir := range []string{"context", "named"} {
		path := filepath.Join(b.dir, dir)
		check(t, os.MkdirAll(path, 0o755))
		if err := mountRamfs(t, path); err != nil {
			t.Skip(err)
		}
	}
	b.write(map[string]string{
		"context/Dockerfile": "FROM $REGISTRY/busybox\nCOPY . /c/\nCOPY --from=named f /f\nADD d /d/\nRUN --mount=type=bind,target=/m cat /m/d/g > /g\n",
		"context/d/g":        "g\n", "named/f": "f\n",
	})
	check(t, os.Symlink("d", filepath.Join(b.dir, "context/link")))
	b.build("--build-context=named=named")
	image, err := lab.Pull(t.Context(), b.ref)
	check(t, err)
	tree, err := harness.Flatten(image.Layers)
	check(t, err)
	for _, name := range []string{"c/Dockerfile", "c/d/g", "c/link", "f", "d/g", "g"} {
		if tree[name] == nil {
			t.Errorf("/%s is missing", name)
		}
	}
}
