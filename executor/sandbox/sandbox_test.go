package sandbox_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/bobbuild/bob/executor/sandbox"
)

func rootfs(t testing.TB) string {
	root := t.TempDir()
	for _, d := range []string{"bin", "tmp"} {
		os.Mkdir(filepath.Join(root, d), 0o755)
	}
	b, _ := os.ReadFile("/bin/busybox")
	os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755)
	for _, d := range []string{"sh", "id", "cat", "mount", "ls", "true"} {
		os.Symlink("busybox", filepath.Join(root, "bin", d))
	}
	return root
}

func TestTry(t *testing.T) {
	r := &sandbox.Runner{Dir: t.TempDir()}
	var out bytes.Buffer
	err := r.Run(t.Context(), &sandbox.Process{Root: rootfs(t), Args: []string{"sh", "-c", "id; cat /proc/self/status | tail -30; mount; ls -la / /dev /sys/fs /etc; cat /proc/self/cgroup"}, Env: []string{"PATH=/bin"}, Stdout: &out, Stderr: &out})
	t.Log(out.String(), err)
}

func BenchmarkRun(b *testing.B) {
	r := &sandbox.Runner{Dir: b.TempDir()}
	p := &sandbox.Process{Root: rootfs(b), Args: []string{"true"}, Env: []string{"PATH=/bin"}}
	for b.Loop() {
		if err := r.Run(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
}
