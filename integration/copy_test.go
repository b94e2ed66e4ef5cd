package integration_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
)

// TestCopyIndex copies an index between layouts and repositories, with skopeo
// before and after bob.
func TestCopyIndex(t *testing.T) {
	t.Parallel()
	check(t, harness.Need("skopeo"))
	b := newWorkbench(t)
	index, err := random.Index(10_000, 3, 3)
	check(t, err)
	hash, err := index.Digest()
	check(t, err)
	want, err := index.RawManifest()
	check(t, err)
	_, err = layout.Write(filepath.Join(b.dir, "made"), index)
	check(t, err)
	// layout.Write makes the index the layout's own; a reference wants one in it.
	check(t, os.WriteFile(filepath.Join(b.dir, "made", "blobs", "sha256", hash.Hex), want, 0o644))
	check(t, lab.User.Own(b.dir))
	skopeo := func(args ...string) []byte {
		t.Helper()
		args = append([]string{lab.NoAuth(), "skopeo", "--insecure-policy"}, args...)
		out, err := exec.CommandContext(t.Context(), "env", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	bob := func(args ...string) {
		t.Helper()
		if r := b.bob(append([]string{"copy"}, args...)...); r.Code != 0 || r.Stdout != hash.String()+"\n" {
			t.Fatalf("bob copy %s: exit code %d, %q\n%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
		}
	}
	first, second, third := b.ref+"-first", strings.TrimSuffix(b.ref, ":1")+"-other:1", b.ref+"-third"
	bob("oci:made@"+hash.String(), first)
	bob(first, second)
	bob(second, "oci:all.tar:x")
	skopeo("copy", "--all", "--preserve-digests", "--dest-tls-verify=false", "oci-archive:"+filepath.Join(b.dir, "all.tar")+":x", "docker://"+third)
	bob(third, "oci:last:x")
	skopeo("copy", "--all", "--preserve-digests", "oci:"+filepath.Join(b.dir, "last")+":x", "dir:"+filepath.Join(b.dir, "dir"))
	for _, ref := range []string{first, second, third} {
		if got := skopeo("inspect", "--raw", "--tls-verify=false", "docker://"+ref); !bytes.Equal(got, want) {
			t.Errorf("%s is %s, want %s", ref, got, want)
		}
		skopeo("copy", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://"+ref, "dir:"+t.TempDir())
	}
}
