package integration_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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

// TestServe builds into bob's own registry and pulls from it by skopeo.
func TestServe(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	seen := watchOut()
	bob, err := lab.Bob()
	check(t, err)
	server := lab.User.Command(t.Context(), b.dir, []string{"HOME=" + b.dir}, bob, "registry", "serve", "--listen", "127.0.0.1:0", "--dir", b.dir+"/images")
	server.Stdout = seen
	check(t, server.Start())
	address := <-seen.line
	host := strings.TrimPrefix(strings.TrimSpace(address), "listening on http://")
	ref := host + "/app:1"
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN echo hi > /hi\n"})
	b.ref = ref
	digest := b.build()
	image, err := lab.Pull(t.Context(), ref)
	check(t, err)
	if image.Digest.String() != digest {
		t.Errorf("pulled %s, built %s", image.Digest, digest)
	}
	b.write(map[string]string{"context/Dockerfile": "FROM " + ref + "\nRUN test -e /hi && rm /hi\n"})
	b.ref = host + "/app:2"
	b.build()
	check(t, server.Process.Signal(syscall.SIGTERM))
	_ = server.Wait()
	if code := server.ProcessState.ExitCode(); code != 143 {
		t.Errorf("bob registry serve ended with %d after SIGTERM", code)
	}
	refused := b.bob("registry", "serve", "--listen", "0.0.0.0:0")
	if refused.Code != 2 {
		t.Errorf("it may listen for the world: exit code %d\n%s", refused.Code, refused.Stderr)
	}
}

// A lineWatcher hands out the first line that is written to it.
type lineWatcher struct {
	line chan string
	seen strings.Builder
	done bool
}

func watchOut() *lineWatcher { return &lineWatcher{line: make(chan string, 1)} }

func (w *lineWatcher) Write(p []byte) (int, error) {
	w.seen.Write(p)
	if line, _, ok := strings.Cut(w.seen.String(), "\n"); ok && !w.done {
		w.done = true
		w.line <- line
	}
	return len(p), nil
}

// TestRawJSON: every line of --progress rawjson is an object that BuildKit's
// tools can read.
func TestRawJSON(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN echo out; echo err >&2\n"})
	result := b.bob("build", "--progress=rawjson", "context")
	if result.Code != 0 {
		t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
	}
	found := map[string]bool{}
	for lines := bufio.NewScanner(strings.NewReader(result.Stderr)); lines.Scan(); {
		var status struct {
			Vertexes []struct{ Digest, Name string }
			Statuses []struct{ ID string }
			Logs     []struct {
				Vertex string
				Data   []byte
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &status); err != nil {
			t.Fatalf("%v: %q", err, lines.Text())
		}
		for _, v := range status.Vertexes {
			found[v.Name] = true
		}
		for _, l := range status.Logs {
			found[strings.TrimSpace(string(l.Data))] = true
		}
	}
	for _, want := range []string{"[2/2] RUN echo out; echo err >&2", "out", "err"} {
		if !found[want] {
			t.Errorf("no %q in %v", want, found)
		}
	}
}

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
