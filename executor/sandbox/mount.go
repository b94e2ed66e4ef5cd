package sandbox

import (
	"strconv"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// Mount is something mounted in the container for its command.
type Mount struct {
	// Kind says what is mounted, and which of the other fields count.
	Kind MountKind
	// Source, of a Bind, is an absolute path outside of the container: a file,
	// a directory or a socket. Mounts below it come along. With Chroot it may be
	// /proc/self/fd/N of a descriptor that stays open.
	Source string
	// Target is an absolute path in the container. It is made for the run if
	// the image lacks it and removed afterwards if still empty. Below an
	// earlier mount's target it is made in that mount's source, and stays.
	Target string
	// ReadOnly refuses writes, also in mounts below Source. A Memory always does.
	ReadOnly bool
	// Size, of a Tmpfs, is its limit in bytes; 0 is the kernel's, half of the
	// memory.
	Size int64
	// File is what a Memory shows.
	File File
}

// MountKind is a kind of Mount.
type MountKind int

// The kinds of mounts.
const (
	// Bind shows a file, directory or socket of the host; the zero value.
	Bind MountKind = iota
	// Tmpfs is an empty file system in memory. It has the mode of the directory that it
	// hides, or 1777 without such a directory, as with runc.
	Tmpfs
	// Memory is a file that exists in memory only, and only for the container:
	// it is never written to a disk, and goes with bob however bob ends.
	Memory
)

// File is a file in memory.
type File struct {
	Content  []byte
	UID, GID uint32 // as the container knows them
	Mode     uint32 // permission bits
}

// bindMount converts a Bind.
func bindMount(m Mount) *configs.Mount {
	bind := &configs.Mount{
		Source: m.Source, Destination: m.Target, Device: "bind",
		Flags:   unix.MS_BIND | unix.MS_REC,
		RecAttr: &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV},
	}
	if m.ReadOnly {
		bind.RecAttr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	return bind
}

// tmpfsMount converts a Tmpfs. As in BuildKit programs in it can be executed.
func tmpfsMount(m Mount) *configs.Mount {
	tmpfs := &configs.Mount{
		Source: "tmpfs", Destination: m.Target, Device: "tmpfs",
		Flags: unix.MS_NOSUID | unix.MS_NODEV,
	}
	if m.ReadOnly {
		tmpfs.Flags |= unix.MS_RDONLY
	}
	if m.Size > 0 {
		tmpfs.Data = "size=" + strconv.FormatInt(m.Size, 10)
	}
	return tmpfs
}
