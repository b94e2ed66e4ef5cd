package integration_test

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestServe builds into bob's own registry and pulls from it by skopeo.
func TestServe(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	host, server := startServe(t, b.dir)
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

// startServe starts bob's own registry, with its images in dir/images, and returns its
// address. It has ended when the test does.
func startServe(t *testing.T, dir string) (host string, server *exec.Cmd) {
	t.Helper()
	bob, err := lab.Bob()
	check(t, err)
	seen := watchOut()
	server = lab.User.Command(t.Context(), dir, []string{"HOME=" + dir}, bob, "registry", "serve", "--listen", "127.0.0.1:0", "--dir", dir+"/images")
	server.Stdout, server.Stderr = seen, t.Output()
	check(t, server.Start())
	t.Cleanup(func() {
		if server.ProcessState == nil {
			_ = server.Process.Kill()
			_ = server.Wait()
		}
	})
	return strings.TrimPrefix(strings.TrimSpace(<-seen.line), "listening on http://"), server
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
