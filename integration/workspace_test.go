package integration_test

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// TestWorkspace makes workspace images by way of a proxy that another user runs and
// that alone may use the private registry: with a base layer that has to be built,
// on another machine where it is there already, and with one that isn't built.
func TestWorkspace(t *testing.T) {
	t.Parallel()
	for kind, registry := range map[string]func() (*harness.Registry, error){"basic": lab.Guarded, "tokens": lab.Tokens} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			r, err := registry()
			check(t, err)
			baseRef, targetRef := r.Prefix+"/workspace-"+kind+"/base:real", r.Prefix+"/workspace-"+kind+"/app:v1"
			p := startProxy(t, []string{
				"WORKSPACEKIT_BOBPROXY_BASEREF=" + baseRef, "WORKSPACEKIT_BOBPROXY_TARGETREF=" + targetRef,
				"WORKSPACEKIT_BOBPROXY_AUTH=" + r.DockerConfig(),
			}, "--listen=127.0.0.1:0")
			env := []string{
				"BOB_BASE_REF=" + p.address + "/base:latest", "BOB_TARGET_REF=" + p.address + "/target:latest",
				"BOB_WORKSPACE_ROOT=" + b.dir + "/ws",
			}
			building := append([]string{"BOB_BUILD_BASE=true", "BOB_DOCKERFILE_PATH=ws/repo/Dockerfile", "BOB_CONTEXT_DIR=ws/repo"}, env...)
			b.write(map[string]string{"ws/": ""})

			// The content comes while bob waits for it.
			seen := watchOut()
			run := b.start(harness.Invocation{Env: building, Args: []string{"build", "--progress=plain"}, Stderr: seen})
			select {
			case line := <-seen.line:
				if !matches("^waiting for the content of the workspace .*ws/.gitpod/ready", line) {
					t.Errorf("bob says %q", line)
				}
			case <-run.ended:
				t.Fatalf("bob ended: %s", run.result.Stderr)
			}
			b.write(map[string]string{"ws/repo/Dockerfile": "FROM $REGISTRY/busybox\nCOPY file /\nRUN echo hi > /hi\n", "ws/repo/file": "one"})
			b.write(map[string]string{"ws/.gitpod/ready": ""})
			<-run.ended
			digest := wantWorkspaceImage(t, run.result, baseRef, targetRef)
			if !matches("RUN echo hi", run.result.Stderr) {
				t.Errorf("the base layer wasn't built:\n%s", run.result.Stderr)
			}

			again := b.run(harness.Invocation{Env: building, Args: []string{"build", "--rootless", "--progress=plain"}, Cache: b.dir + "/elsewhere"})
			if got := wantWorkspaceImage(t, again, baseRef, targetRef); got != digest || !matches("nothing to do", again.Stderr) {
				t.Errorf("the second time it is %s, not %s:\n%s", got, digest, again.Stderr)
			}
			if _, err := os.Stat(b.dir + "/elsewhere"); !os.IsNotExist(err) {
				t.Errorf("a cache was made: %v", err)
			}

			base, err := harness.Layers(t.Context())
			check(t, err)
			check(t, r.Push(t.Context(), baseRef, base))
			copied := b.run(harness.Invocation{Env: env, Args: []string{"build"}})
			if got := wantWorkspaceImage(t, copied, baseRef, targetRef); got == digest {
				t.Error("the new base wasn't copied")
			}

			p.signal(syscall.SIGTERM)
			p.end()
			checkWorkspaceLog(t, p.log.Bytes())
		})
	}
}

// wantWorkspaceImage fails the test unless bob has made target the image that base
// is, and returns its digest.
func wantWorkspaceImage(t *testing.T, r harness.Result, base, target string) string {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("exit code %d:\n%s", r.Code, r.Stderr)
	}
	digest := strings.TrimSpace(r.Stdout)
	for _, ref := range []string{base, target} {
		if got := remoteDigest(t, ref); got != digest {
			t.Errorf("%s is %s, bob says %s", ref, got, digest)
		}
	}
	return digest
}

// checkWorkspaceLog reads from a proxy's log that layers of base were mounted into
// target and never sent there.
func checkWorkspaceLog(t *testing.T, log []byte) {
	t.Helper()
	mounted, sent := 0, 0
	for line := range bytes.Lines(log) {
		var entry struct {
			About, Method, Repository string
			Status                    int
		}
		if json.Unmarshal(line, &entry) != nil || entry.Repository != "target" {
			continue
		}
		switch {
		case entry.About == "upload start" && entry.Status == 201:
			mounted++
		case entry.About == "upload" && entry.Method == "PUT":
			sent++
		}
	}
	if mounted == 0 || sent > 0 {
		t.Errorf("%d blobs were mounted and %d sent:\n%s", mounted, sent, log)
	}
}
