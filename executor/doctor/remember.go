package doctor

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// rememberedName is the directory of what was found out about the directory that it is in:
// in it is one for each boot of the machine and each user namespace's IDs.
const rememberedName = ".overlay"

// TryOverlay tries what snapshots by overlays take in the directory, and returns
// what keeps bob from it; nil if it works. The process must have entered. That it works
// is remembered in the directory for as long as the machine runs; it then takes one mount
// to see that it still may. Of what it makes nothing else stays.
func TryOverlay(dir string) *obstacle.Obstacle {
	known, err := remembered(dir)
	if err == nil && mountsAgain(known) {
		return nil
	}
	found := inScratch(dir, func(scratch string) *obstacle.Obstacle {
		defer func() { _ = unix.Unmount(scratch+"/merged", unix.MNT_DETACH) }()
		return overlayIn(scratch)
	})
	if found == nil && err == nil {
		remember(known)
	}
	return found
}

// remembered returns the directory that is there if overlays in dir have been found to work.
func remembered(dir string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	sum := sha256.New()
	for _, path := range []string{"/proc/sys/kernel/random/boot_id", "/proc/self/uid_map", "/proc/self/gid_map"} {
		content, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%q", content)
	}
	fmt.Fprintf(sum, "%d", st.Dev)
	return filepath.Join(dir, rememberedName, hex.EncodeToString(sum.Sum(nil)[:16])), nil
}

// remember makes the directory, and removes those of other boots. What can't be
// remembered is tried again.
func remember(known string) {
	if entries, err := os.ReadDir(filepath.Dir(known)); err == nil && len(entries) > maxRemembered {
		_ = os.RemoveAll(filepath.Dir(known))
	}
	for _, name := range []string{"first", "second", "merged"} {
		if os.MkdirAll(filepath.Join(known, name), 0o700) != nil {
			return
		}
	}
}

// maxRemembered is how many directories may be remembered before all are forgotten.
const maxRemembered = 20

// mountsAgain reports whether an overlay can be mounted in the remembered directory. It
// changes nothing, so that processes may do so at the same time.
func mountsAgain(known string) bool {
	fd, err := unix.Open(known, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	merged := filepath.Join(known, "merged")
	err = unix.Mount("overlay", merged, "overlay", unix.MS_RDONLY, strings.ReplaceAll("userxattr,lowerdir=FD/first:FD/second", "FD", fmt.Sprintf("/proc/self/fd/%d", fd)))
	return err == nil && unix.Unmount(merged, unix.MNT_DETACH) == nil
}
