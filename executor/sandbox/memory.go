package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot/owners"
)

// memoryFiles are the files in memory of one run. They lie in a tmpfs of their
// own, mounted when the first is made. Only this process's mount namespace has
// it, so that the kernel drops it when bob is killed.
type memoryFiles struct {
	dir     string // an empty directory, made when it is needed
	owners  owners.Keeper
	mounted bool
	count   int
}

// mount makes the file of m and returns its mount.
func (f *memoryFiles) mount(m Mount) (*configs.Mount, error) {
	if !f.mounted {
		if err := os.Mkdir(f.dir, 0o700); err != nil {
			return nil, err
		}
		flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
		if err := unix.Mount("tmpfs", f.dir, "tmpfs", flags, "mode=0700"); err != nil {
			return nil, fmt.Errorf("make files in memory: %w", &os.PathError{Op: "mount tmpfs", Path: f.dir, Err: err})
		}
		f.mounted = true
	}
	f.count++
	path := filepath.Join(f.dir, strconv.Itoa(f.count))
	err := os.WriteFile(path, m.File.Content, 0o600)
	if err == nil {
		err = f.owners.Fchownat(unix.AT_FDCWD, path, int(m.File.UID), int(m.File.GID))
	}
	if errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("uid %d, gid %d: not among the IDs that bob may use: widen its ranges in /etc/subuid and /etc/subgid", m.File.UID, m.File.GID)
	}
	if err == nil {
		err = f.owners.Fchmodat(unix.AT_FDCWD, path, m.File.Mode&0o777)
	}
	if err != nil {
		return nil, err
	}
	bind := bindMount(Mount{Source: path, Target: m.Target, ReadOnly: true})
	bind.RecAttr.Attr_set |= unix.MOUNT_ATTR_NOSUID
	if m.File.Mode&0o111 == 0 {
		bind.RecAttr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	}
	return bind, nil
}

// remove frees the memory.
func (f *memoryFiles) remove() error {
	if !f.mounted {
		return nil
	}
	if err := unix.Unmount(f.dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return &os.PathError{Op: "unmount", Path: f.dir, Err: err}
	}
	return nil
}
