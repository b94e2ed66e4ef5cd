package integration_test

import (
	"errors"
	"fmt"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// mountExt4 mounts a fresh ext4 of size on dir, for as long as the test runs:
// a file system that can be an overlay's upper on every kernel, and that fills up.
func mountExt4(t *testing.T, dir, size string) error {
	t.Helper()
	image := dir + ".img"
	for _, command := range [][]string{
		{"truncate", "-s", size, image},
		{"mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image},
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", command[0], err, out)
		}
	}
	unmountLater(t, dir)
	return nil
}

// mountRamfs mounts a ramfs on dir, which has no extended attributes.
func mountRamfs(t *testing.T, dir string) error {
	t.Helper()
	if err := unix.Mount("ramfs", dir, "ramfs", 0, ""); err != nil {
		return fmt.Errorf("mount a ramfs: %w", err)
	}
	unmountLater(t, dir)
	if _, err := unix.Getxattr(dir, "security.capability", nil); !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("a ramfs answers a question for an attribute: %w", err)
	}
	return nil
}

func unmountLater(t *testing.T, dir string) {
	t.Helper()
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}
