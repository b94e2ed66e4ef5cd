package sandbox

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containers/storage/pkg/unshare"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// defaultShmSize is the default size of /dev/shm, in bytes.
const defaultShmSize = 64 << 20

// noAccess are the mount flags of file systems that hold no programs.
const noAccess = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV

// deviceNodes are the devices of every container.
var deviceNodes = [...]string{"null", "zero", "full", "random", "urandom", "tty"}

// insecureDevices are further devices of an insecure container.
var insecureDevices = [...]string{"kmsg", "cuse", "fuse", "kvm", "net/tun", "loop-control"}

// systemMounts returns what every container has mounted, in order. userNS says that bob is
// in a user namespace; sys is a mounted sysfs of bob's network namespace.
func systemMounts(p *Process, userNS bool, sys string, refused fallback) []*configs.Mount {
	shm := p.ShmSize
	if shm <= 0 {
		shm = defaultShmSize
	}
	mounts := []*configs.Mount{
		procMount(refused),
		{
			Source: "tmpfs", Destination: "/dev", Device: "tmpfs",
			Flags: devFlags(p),
			Data:  "mode=755,size=65536k",
		},
		{
			Source: "devpts", Destination: "/dev/pts", Device: "devpts",
			Flags: unix.MS_NOSUID | unix.MS_NOEXEC,
			Data:  "newinstance,ptmxmode=0666,mode=0620" + ttyGroup(),
		},
		{
			Source: "shm", Destination: "/dev/shm", Device: "tmpfs",
			Flags: noAccess,
			Data:  "mode=1777,size=" + strconv.FormatInt(shm, 10),
		},
		{Source: "mqueue", Destination: "/dev/mqueue", Device: "mqueue", Flags: noAccess},
	}
	for _, name := range deviceNames(p, userNS) {
		// Bound rather than made: a node on a nodev file system is dead, and
		// a user namespace can make none. Read-only doesn't keep anyone from
		// writing to a device, but root from changing the mode and owner of
		// the host's node.
		device := "/dev/" + name
		if info, err := os.Stat(device); err == nil && info.Mode()&os.ModeDevice != 0 {
			mounts = append(mounts, &configs.Mount{
				Source: device, Destination: device, Device: "bind", Flags: unix.MS_BIND,
				RecAttr: &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC},
			})
		}
	}
	if p.Network == Host && (userNS || p.nested(refused)) {
		// Only the owner of a network namespace may mount a sysfs of it: inside a
		// user namespace that is no question of trying.
		refused |= boundSys
	}
	return append(mounts, sysMount(p, sys, refused))
}

// devFlags returns the mount flags of /dev. Without nodev a command with
// CAP_MKNOD could make there, and open, any device of the host: that is what an
// insecure one asks for.
func devFlags(p *Process) int {
	flags := unix.MS_NOSUID | unix.MS_STRICTATIME
	if !p.Insecure {
		flags |= unix.MS_NODEV
	}
	return flags
}

// deviceNames returns the names in /dev of the devices of the container. As in
// BuildKit an insecure one has further ones unless it is in a user namespace,
// where they could not be opened.
func deviceNames(p *Process, userNS bool) []string {
	names := slices.Clone(deviceNodes[:])
	if !p.Insecure || userNS {
		return names
	}
	names = append(names, insecureDevices[:]...)
	loops, err := filepath.Glob("/dev/loop[0-9]*")
	if err != nil {
		return names
	}
	for _, loop := range loops {
		names = append(names, filepath.Base(loop))
	}
	return names
}

// procMount returns the mount of /proc.
func procMount(refused fallback) *configs.Mount {
	if refused&boundProc != 0 {
		return &configs.Mount{
			Source: "/proc", Destination: "/proc", Device: "bind",
			Flags: unix.MS_BIND | unix.MS_REC,
		}
	}
	return &configs.Mount{Source: "proc", Destination: "/proc", Device: "proc", Flags: noAccess}
}

// sysMount returns the mount of /sys, which is read-only unless the container
// is insecure. A sysfs shows the devices of one network namespace.
func sysMount(p *Process, sys string, refused fallback) *configs.Mount {
	attr, flags := uint64(unix.MOUNT_ATTR_RDONLY), unix.MS_RDONLY
	if p.Insecure {
		attr, flags = 0, 0
	}
	if refused&boundSys != 0 {
		return &configs.Mount{
			Source: sys, Destination: "/sys", Device: "bind",
			Flags:   unix.MS_BIND | unix.MS_REC,
			RecAttr: &unix.MountAttr{Attr_set: attr | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NODEV},
		}
	}
	return &configs.Mount{
		Source: "sysfs", Destination: "/sys", Device: "sysfs",
		Flags: noAccess | flags,
	}
}

// mountSys mounts a sysfs in the directory state, with nothing below it, and returns its
// path and how to undo that. Where that is refused, as in a user namespace that doesn't own
// the network namespace, it is the machine's own at /sys, with what is mounted there.
func mountSys(state string) (path string, undo func() error) {
	path = filepath.Join(state, "sys")
	if os.Mkdir(path, 0o700) != nil || unix.Mount("sysfs", path, "sysfs", noAccess|unix.MS_RDONLY, "") != nil {
		return "/sys", func() error { return nil }
	}
	return path, func() error {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
		return nil
	}
}

// ttyGroup returns the mount option that gives terminals to group tty, which
// takes that its number is mapped.
func ttyGroup() string {
	const tty = 5
	_, gids, err := unshare.GetHostIDMappings("")
	if err != nil {
		return ""
	}
	for _, m := range gids {
		if m.ContainerID <= tty && tty-m.ContainerID < m.Size {
			return ",gid=" + strconv.Itoa(tty)
		}
	}
	return ""
}
