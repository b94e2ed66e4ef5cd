package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// TestDiskFull builds on a file system that is too small, at each place where
// it may fill up.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	for name, test := range map[string]struct {
		size, dockerfile string
	}{
		"unpacking the base": {"1m", "FROM $REGISTRY/busybox\nRUN true\n"},
		"in a RUN":           {"24m", "FROM $REGISTRY/busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=100\n"},
		"in a COPY":          {"24m", "FROM $REGISTRY/busybox\nCOPY big /big\nRUN true\n"},
		// The step itself fits, its compressed layer doesn't.
		"making the layer": {"24m", "FROM $REGISTRY/busybox\nRUN head -c 14000000 /dev/urandom > /big\nRUN true\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			small := filepath.Join(b.dir, "small")
			check(t, os.MkdirAll(small, 0o755))
			if err := mountExt4(t, small, test.size); err != nil {
				t.Skipf("this machine mounts no small file system: %v", err)
			}
			cache := filepath.Join(small, "cache")
			check(t, lab.User.Mkdir(cache))
			b.write(map[string]string{"context/Dockerfile": test.dockerfile, "context/big": strings.Repeat("0123456789abcdef", 3<<20)})
			result := b.run(harness.Invocation{Cache: cache, Args: []string{"build", "--progress=plain", "-t", b.ref, "context"}})
			if result.Code != 1 {
				t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
			}
			if !matches("no space left", result.Stderr) {
				t.Errorf("it isn't said that the disk is full:\n%s", result.Stderr)
			}
			b.wantAbsent()
		})
	}
}
