package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/bobbuild/bob/registry/internal/registrytest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// serveDistribution starts Debian's docker-registry (distribution 2.8) and
// returns its host.
func serveDistribution(t *testing.T) string {
	t.Helper()
	return serveDistributionWith(t, "")
}

// serveDistributionWith starts it with more lines of configuration.
func serveDistributionWith(t *testing.T, more string) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed")
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/data}, delete: {enabled: true}}\nhttp: {addr: %s, secret: s}\n%s", dir, host, more)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "serve", config)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("docker-registry says:\n%s", output.Bytes())
		}
	})
	for range 200 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v2/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			return host
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("docker-registry does not answer")
	return ""
}

func TestWire(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(*testing.T) string{
		"distribution": serveDistribution,
		"embedded":     registrytest.ServeEmbedded,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := start(t)
			ctx := t.Context()
			c := registrytest.NewClient(t, nil)
			f := registrytest.NewFixture(t, registrytest.AMD64, 3<<20+17, 1<<20, 1)
			f.Push(ctx, t, c, host+"/team/app:1")
			im := f.Check(ctx, t, c, host+"/team/app:1")
			f.Check(ctx, t, c, im.Reference)

			// The same blobs in another repository: mounted, not sent.
			p, err := c.Push(ctx, host+"/other:1")
			if err != nil {
				t.Fatal(err)
			}
			for _, layer := range f.Descs {
				if err := p.Blob(ctx, layer.Descriptor, im.Reference, mustNotOpen(t)); err != nil {
					t.Fatal(err)
				}
			}
			config := registrytest.Descriptor(ocispec.MediaTypeImageConfig, f.Config)
			if err := p.Blob(ctx, config, host+"/team/app", mustNotOpen(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Manifest(ctx, f.MediaType, f.Manifest); err != nil {
				t.Fatal(err)
			}
			f.Check(ctx, t, c, host+"/other:1")
			checkSkopeo(t, c, host)
		})
	}
}

// checkSkopeo has another client push an image that we pull, and pull one that
// we pushed.
func checkSkopeo(t *testing.T, c *registry.Client, host string) {
	t.Helper()
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Log("skopeo is not installed: its part is left out")
		return
	}
	dir := t.TempDir()
	a := registrytest.NewArchive(t, "app:1")
	if err := archive.WriteOCIDir(t.Context(), dir, a); err != nil {
		t.Fatal(err)
	}
	// Not the user's own file, which may be another user's.
	credentials := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(credentials, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, arguments := range [][]string{
		{"--dest-tls-verify=false", "oci:" + dir + ":1", "docker://" + host + "/skopeo:1"},
		{"--src-tls-verify=false", "docker://" + host + "/skopeo:1", "dir:" + t.TempDir()},
	} {
		arguments = append([]string{"--insecure-policy", "copy", "--authfile", credentials}, arguments...)
		if output, err := exec.CommandContext(t.Context(), skopeo, arguments...).CombinedOutput(); err != nil {
			t.Fatalf("skopeo %s: %v\n%s", arguments, err, output)
		}
	}
	im, err := c.Resolve(t.Context(), host+"/skopeo:1", registrytest.AMD64)
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range im.Layers {
		if _, err := registrytest.ReadBlob(t.Context(), im, layer.Descriptor); err != nil {
			t.Error(err)
		}
	}
}
