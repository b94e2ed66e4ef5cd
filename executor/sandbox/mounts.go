package sandbox

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/containers/storage/pkg/unshare"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// Mount is a bind mount.
type Mount struct {
	// Source is an absolute path outside of the container, a file or a
	// directory. Mounts below it come along.
	Source string
	// Target is an absolute path in the container. It is made for the run if
	// the image lacks it and removed afterwards if still empty. Below an
	// earlier mount's target it is made in that mount's source, and stays.
	Target string
	// ReadOnly refuses writes, also in mounts below Source.
	ReadOnly bool
}

// defaultShmSize is the size of /dev/shm in bytes if none is asked for.
const defaultShmSize = 64 << 20

// noAccess are the mount flags of file systems that hold no programs.
const noAccess = unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_NODEV

// deviceNodes are the devices of every container.
var deviceNodes = [...]string{"null", "zero", "full", "random", "urandom", "tty"}

// systemMounts returns what every container has mounted, in order.
func systemMounts(p *Process, userNS bool, refused fallback) []*configs.Mount {
	shm := p.ShmSize
	if shm <= 0 {
		shm = defaultShmSize
	}
	mounts := []*configs.Mount{
		procMount(refused),
		{
			Source: "tmpfs", Destination: "/dev", Device: "tmpfs",
			// Without nodev a command with CAP_MKNOD could make here, and
			// open, any device of the host.
			Flags: unix.MS_NOSUID | unix.MS_STRICTATIME | unix.MS_NODEV,
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
	for _, name := range deviceNodes {
		// Bound rather than made: a node on a nodev file system is dead, and
		// a user namespace can make none. Read-only doesn't keep anyone from
		// writing to a device, but root from changing the mode and owner of
		// the host's node.
		device := "/dev/" + name
		if _, err := os.Stat(device); err == nil {
			mounts = append(mounts, &configs.Mount{
				Source: device, Destination: device, Device: "bind", Flags: unix.MS_BIND,
				RecAttr: &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC},
			})
		}
	}
	return append(mounts, sysMount(p, userNS, refused))
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

// sysMount returns the mount of /sys, which is read-only. A sysfs shows the
// devices of one network namespace and only its owner may mount it: inside a
// user namespace that is no question of trying.
func sysMount(p *Process, userNS bool, refused fallback) *configs.Mount {
	if refused&boundSys != 0 || userNS && p.Network != None {
		return &configs.Mount{
			Source: "/sys", Destination: "/sys", Device: "bind",
			Flags:   unix.MS_BIND | unix.MS_REC,
			RecAttr: &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NODEV},
		}
	}
	return &configs.Mount{
		Source: "sysfs", Destination: "/sys", Device: "sysfs",
		Flags: noAccess | unix.MS_RDONLY,
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

// bindMount converts m to a mount on the target.
func bindMount(m Mount, target string) *configs.Mount {
	bind := &configs.Mount{
		Source: m.Source, Destination: target, Device: "bind",
		Flags:   unix.MS_BIND | unix.MS_REC,
		RecAttr: &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV},
	}
	if m.ReadOnly {
		bind.RecAttr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	return bind
}

// placeMounts resolves the targets of all mounts of the container in the root
// file system and makes the mount points that are missing there. It returns
// the mounts for libcontainer.
func placeMounts(points *mountPoints, system []*configs.Mount, binds []Mount) ([]*configs.Mount, error) {
	var placed []*configs.Mount
	var covered []string // targets so far, as written and resolved
	place := func(m *configs.Mount, isDir bool) error {
		placed = append(placed, m)
		target := path.Clean(m.Destination)
		if isBelow(target, covered) {
			return nil // what the root file system has there is hidden
		}
		resolved, err := points.resolve(target)
		if err != nil {
			return err
		}
		if isBelow(resolved, covered) {
			return nil
		}
		m.Destination = resolved
		covered = append(covered, target, resolved)
		return points.make(resolved, isDir)
	}
	for _, m := range system {
		if err := place(m, true); err != nil {
			return nil, err
		}
	}
	for _, m := range binds {
		info, err := os.Stat(m.Source)
		if err != nil {
			return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
		}
		if err := place(bindMount(m, m.Target), info.IsDir()); err != nil {
			return nil, err
		}
	}
	return placed, nil
}

// isBelow reports whether the target lies below one of the mount points.
func isBelow(target string, mounts []string) bool {
	return slices.ContainsFunc(mounts, func(m string) bool { return strings.HasPrefix(target, m+"/") })
}
