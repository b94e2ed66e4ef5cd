package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// foreignArchitecture is Debian's and Go's name of the architecture of ForeignBusybox.
const foreignArchitecture = "arm64"

// ForeignBusybox is Busybox for linux/arm64, with the program of Debian's package. The
// error is a *MissingError where it can't be had.
func ForeignBusybox(ctx context.Context) (*BaseImage, error) {
	binary, err := foreignBinary(ctx)
	if err != nil {
		return nil, err
	}
	return busyboxOf(ctx, binary, true)
}

// foreignBinary returns the path of the busybox of another architecture, taken from
// Debian's package if there is none of the last weeks. apt-get is told to keep all that
// it keeps of that architecture elsewhere: nothing of the machine changes.
func foreignBinary(ctx context.Context) (string, error) {
	if err := Need("apt-get", "dpkg-deb"); err != nil {
		return "", err
	}
	if _, err := aptSources(); err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(cache, "lock-foreign"))
	if err != nil {
		return "", err
	}
	defer unlock()
	binary := filepath.Join(cache, "busybox-"+foreignArchitecture)
	if info, err := os.Stat(binary); err == nil && time.Since(info.ModTime()) < debianAge {
		return binary, nil
	}
	dir, err := os.MkdirTemp(cache, "foreign-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	for _, below := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, below), 0o755); err != nil {
			return "", err
		}
	}
	for _, command := range [][]string{{"update"}, {"download", "busybox-static"}} {
		cmd := exec.CommandContext(ctx, "apt-get", append([]string{
			"-qq", "-o", "Dir::State=" + dir + "/state", "-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache=" + dir + "/cache",
			"-o", "APT::Architecture=" + foreignArchitecture, "-o", "APT::Architectures=" + foreignArchitecture, "-o", "APT::Sandbox::User=root",
		}, command...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", &MissingError{What: fmt.Sprintf("an archive with packages of %s: apt-get %s: %v\n%s", foreignArchitecture, command[0], err, out)}
		}
	}
	found, err := filepath.Glob(filepath.Join(dir, "busybox-static_*.deb"))
	if err == nil && len(found) != 1 {
		err = errors.New("apt-get downloaded no package, or several")
	}
	if err != nil {
		return "", err
	}
	if err := sh(ctx, "dpkg-deb", "--extract", found[0], dir); err != nil {
		return "", err
	}
	unpacked := filepath.Join(dir, "bin/busybox")
	now := time.Now() // the package's is older than is kept
	if err := os.Chtimes(unpacked, now, now); err != nil {
		return "", err
	}
	return binary, os.Rename(unpacked, binary)
}
