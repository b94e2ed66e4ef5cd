package chroot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/emulate"
	"github.com/bobbuild/bob/snapshot/owners"
)

// devicesBarred reports whether opening devices that the container wasn't given is
// refused, which it tries in dir with one that no machine has.
func devicesBarred(dir string) bool {
	place, err := os.MkdirTemp(dir, ".bob-device-")
	if err != nil {
		return false
	}
	defer func() { _ = os.RemoveAll(place) }()
	node := filepath.Join(place, "node")
	if err := emulate.MakeNode(node); err != nil {
		return false
	}
	fd, err := unix.Open(node, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = unix.Close(fd)
	}
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

// findDevice returns the path of a device below root that can do harm, "" if there
// is none.
func findDevice(root string) (string, error) {
	found := ""
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeDevice == 0 {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: path, Err: err}
		}
		if harmless(&st) {
			return nil
		}
		found = path
		return fs.SkipAll
	})
	return found, err
}

// harmless reports whether the device is one that every container has, or none.
func harmless(st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return false
	}
	return st.Rdev == 0 || owners.IsHarmless(st.Mode, st.Rdev)
}

// checkDevices refuses a root file system, in which the command's own /dev is in its
// place, with devices that a command could open where no device cgroup keeps it from the
// machine's disks. No command can make further ones.
func checkDevices(root string) error {
	if devicesBarred(filepath.Dir(root)) {
		return nil
	}
	found, err := findDevice(root)
	if err != nil || found == "" {
		return err
	}
	return fmt.Errorf("run: the image has the device %s outside of /dev, which commands could open: this container has no device cgroup: start it with a container engine, or use another base image", strings.TrimPrefix(found, root))
}
