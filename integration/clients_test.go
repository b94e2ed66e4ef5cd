package integration_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// TestUmoci checks that another client than skopeo unpacks what was pushed.
func TestUmoci(t *testing.T) {
	t.Parallel()
	check(t, harness.Need("skopeo", "umoci"))
	b := newWorkbench(t)
	_, err := lab.Image(t.Context(), "layers")
	check(t, err)
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/layers\nRUN rm -r /data/old /data/keep && mkdir /data/old && echo n > /data/old/n && ln /data/fine /data/f2\n"})
	b.build()
	image, err := lab.Pull(t.Context(), b.ref)
	check(t, err)
	tree, err := harness.Flatten(image.Layers)
	check(t, err)
	layout := filepath.Join(b.dir, "layout")
	for _, command := range [][]string{
		{"env", lab.NoAuth(), "skopeo", "--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "docker://" + b.ref, "oci:" + layout + ":x"},
		{"umoci", "unpack", "--rootless", "--image", layout + ":x", filepath.Join(b.dir, "bundle")},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command[0], err, out)
		}
	}
	root := filepath.Join(b.dir, "bundle", "rootfs")
	for path := range tree {
		if _, err := os.Lstat(filepath.Join(root, path)); err != nil {
			t.Errorf("umoci has no %s", path)
		}
	}
	if body, err := os.ReadFile(filepath.Join(root, "data/old/n")); err != nil || string(body) != "n\n" {
		t.Errorf("umoci has %q, %v", body, err)
	}
	if _, err := os.Lstat(filepath.Join(root, "data/keep")); err == nil {
		t.Error("umoci still has data/keep")
	}
}
