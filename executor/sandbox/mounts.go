package sandbox

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containers/storage/pkg/unshare"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/mountpoint"
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
	// Tmpfs is an empty file system in memory. Its mode is that of the
	// directory it hides, or 1777 if there is none, as runc makes it.
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

// defaultShmSize is the size of /dev/shm in bytes if none is asked for.
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

// A placement puts mounts into a root file system, one after the other.
type placement struct {
	points  *mountpoint.Set
	placed  []placedMount
	covered []string // targets so far, as written and resolved
}

// A placedMount is a mount whose destination is where it leads to.
type placedMount struct {
	*configs.Mount
	isDir bool
	// hidden says that what the root file system has there is below another mount.
	hidden bool
}

// placeMounts resolves the targets of all mounts of the container in the root
// file system and makes the mount points that are missing there. A mount of the
// process on the very target of another takes the place of that one, as in BuildKit.
// It returns the mounts for libcontainer. memory is where files in memory are made.
func placeMounts(points *mountpoint.Set, system []*configs.Mount, host, mounts []Mount, memory *memoryFiles) ([]*configs.Mount, error) {
	p := &placement{points: points}
	for _, m := range system {
		if err := p.place(m, true); err != nil {
			return nil, err
		}
	}
	for _, m := range host {
		if points.Unreachable(m.Target) {
			continue
		}
		if err := p.add(m, memory); err != nil {
			return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
		}
	}
	for _, m := range mounts {
		if err := p.add(m, memory); err != nil {
			return nil, fmt.Errorf("mount on %s: %w", m.Target, err)
		}
	}
	all := make([]*configs.Mount, 0, len(p.placed))
	for _, m := range p.placed {
		if err := p.makePoint(m); err != nil {
			return nil, fmt.Errorf("mount on %s: %w", m.Destination, err)
		}
		all = append(all, m.Mount)
	}
	return all, nil
}

// add places one mount of the process.
func (p *placement) add(m Mount, memory *memoryFiles) error {
	switch m.Kind {
	case Tmpfs:
		return p.place(tmpfsMount(m), true)
	case Memory:
		bind, err := memory.mount(m)
		if err != nil {
			return err
		}
		return p.place(bind, false)
	case Bind:
	}
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	return p.place(bindMount(m), info.IsDir())
}

// place places one mount on a directory, or a file if isDir is false.
func (p *placement) place(m *configs.Mount, isDir bool) error {
	target := path.Clean(m.Destination)
	m.Destination = target
	placed := placedMount{Mount: m, isDir: isDir, hidden: mountpoint.IsBelow(target, p.covered)}
	if !placed.hidden {
		resolved, err := p.points.Resolve(target)
		if err != nil {
			return err
		}
		m.Destination = resolved
		placed.hidden = mountpoint.IsBelow(resolved, p.covered)
	}
	// Those that lie below the one that is replaced stay there.
	if i := slices.IndexFunc(p.placed, func(o placedMount) bool { return o.Destination == m.Destination }); i >= 0 {
		p.placed[i] = placed
		return nil
	}
	p.placed = append(p.placed, placed)
	if !placed.hidden {
		p.covered = append(p.covered, target, m.Destination)
	}
	return nil
}

// makePoint makes what a mount is mounted on, unless it is there.
func (p *placement) makePoint(m placedMount) error {
	if m.hidden {
		return nil
	}
	made, err := p.points.Make(m.Destination, m.isDir)
	if made && m.Device == "tmpfs" && m.Destination != "/dev" {
		// libcontainer gives a tmpfs the mode of what is there, which here is
		// a stub. The last of several modes counts.
		m.Data = strings.TrimPrefix(m.Data+",mode=1777", ",")
	}
	return err
}
