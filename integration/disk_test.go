package integration_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
	"golang.org/x/sys/unix"
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

// TestDiskFullAnywhere builds in less and less room, so that the disk is full at one
// stage after another. Nothing half-made stays, and with room the next build in the
// same cache gives what an empty one does.
func TestDiskFullAnywhere(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	b := crashBench(t)
	small := strings.NewReplacer("$REGISTRY/layers", "$REGISTRY/busybox", " /data/old", "")
	b.write(map[string]string{"context/Dockerfile": small.Replace(crashing)})
	args := func(dir string) []string {
		return []string{
			"build", "--progress=plain", "-t", b.ref, "--build-arg=N=0", "--build-arg=SOURCE_DATE_EPOCH=1600000000",
			"-o", "type=registry", "-o", "type=oci,dest=" + dir + "/out.tar", "--cache-to=type=local,mode=max,dest=" + dir + "/kept", "context",
		}
	}
	roomy := filepath.Join(b.dir, "roomy")
	check(t, lab.User.Mkdir(roomy))
	cold := b.run(harness.Invocation{Args: args(roomy), Cache: filepath.Join(roomy, "cache")})
	want := strings.TrimSpace(cold.Stdout)
	if cold.Code != 0 || want == "" {
		t.Fatalf("exit code %d\n%s", cold.Code, cold.Stderr)
	}
	var need int64
	seen := map[uint64]bool{} // files with several names
	check(t, filepath.WalkDir(roomy, func(path string, _ fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		if !seen[st.Ino] {
			need += st.Blocks * 512
		}
		seen[st.Ino] = true
		return err
	}))
	const parts = 10
	full := 0
	for part := range parts {
		small := filepath.Join(b.dir, "small", strconv.Itoa(part))
		check(t, os.MkdirAll(small, 0o755))
		size := need * int64(part+1) / parts
		check(t, unix.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("mode=755,size=%d", size)))
		t.Cleanup(func() { check(t, unix.Unmount(small, unix.MNT_DETACH)) })
		check(t, lab.User.Own(small))
		cache := filepath.Join(small, "cache")
		result := b.run(harness.Invocation{Args: args(small), Cache: cache})
		if result.Code != 0 {
			full++
			if result.Code != 1 || !matches("no space left|No space left", result.Stderr) {
				t.Errorf("%d bytes: exit code %d, and it isn't said that the disk is full:\n%s", size, result.Code, result.Stderr)
			}
			for _, name := range []string{"out.tar", "kept/index.json"} {
				if _, err := os.Stat(filepath.Join(small, name)); err == nil {
					t.Errorf("%d bytes: %s is there:\n%s", size, name, result.Stderr)
				}
			}
		} else if got := strings.TrimSpace(result.Stdout); got != want {
			t.Errorf("%d bytes: digest %s, want %s", size, got, want)
		}
		check(t, unix.Mount("", small, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", 8*need)))
		again := b.run(harness.Invocation{Args: args(small), Cache: cache})
		if got := strings.TrimSpace(again.Stdout); again.Code != 0 || got != want {
			t.Errorf("%d bytes, then room: exit code %d, digest %s, want %s\n%s", size, again.Code, got, want, again.Stderr)
		}
	}
	if full < parts/3 {
		t.Errorf("the disk was full %d times only", full)
	}
}
