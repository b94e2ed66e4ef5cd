package integration_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// TestRootModes builds the same as an unprivileged user, as root and as root
// with --rootless: the files must not tell which it was.
func TestRootModes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can also build as root")
	}
	b := newWorkbench(t)
	_, err := lab.Image(t.Context(), "layers")
	check(t, err)
	b.write(map[string]string{
		"context/Dockerfile": "FROM $REGISTRY/layers\nRUN rm -r /data/old && mkdir /data/old && chown 5:6 /data/old && chmod 2770 /data/old " +
			"&& ln /data/keep /data/kept && rm /data/fine && echo x > /x && chown 65534:1000 /x && chmod 4711 /x\n" +
			"COPY --chown=alice f /copied/f\nUSER alice\nWORKDIR /home/alice/w\nRUN id > id && grep -q '^NoNewPrivs:.*0' /proc/self/status\n",
		"context/f": "f\n",
	})
	bob, err := lab.Bob()
	check(t, err)
	trees := map[string]harness.Tree{}
	for _, mode := range []string{"user", "root", "root --rootless"} {
		ref := b.ref + "-" + strings.ReplaceAll(mode, " ", "")
		args := []string{"build", "--progress=plain", "-t", ref}
		if mode == "root --rootless" {
			args = append(args, "--rootless")
		}
		args = append(args, "context")
		if mode == "user" {
			if result := b.bob(args...); result.Code != 0 {
				t.Fatalf("%s: exit code %d\n%s", mode, result.Code, result.Stderr)
			}
		} else {
			cmd := exec.CommandContext(t.Context(), bob, args...)
			cmd.Dir = b.dir
			cmd.Env = []string{"HOME=" + b.dir, "PATH=" + os.Getenv("PATH"), "BOB_CACHE_DIR=" + filepath.Join(b.dir, "cache-"+strings.ReplaceAll(mode, " ", ""))}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", mode, err, out)
				continue
			}
		}
		image, err := lab.Pull(t.Context(), ref)
		check(t, err)
		for _, p := range imageProblems(image) {
			t.Errorf("%s: %s", mode, p)
		}
		trees[mode], err = harness.Flatten(image.Layers)
		check(t, err)
	}
	for mode, tree := range trees {
		for _, change := range tree.Changes(trees["user"]) {
			t.Errorf("%s, compared with the unprivileged user: %s", mode, change)
		}
	}
}
