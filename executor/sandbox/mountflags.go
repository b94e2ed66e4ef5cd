package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// restrictions are the attributes of mount_setattr(2) that only take something
// away, with the flags of mount(2) and the names in mountinfo that mean the same.
var restrictions = []struct {
	attr, flag uintptr
	name       string
}{
	{unix.MOUNT_ATTR_RDONLY, unix.MS_RDONLY, "ro"},
	{unix.MOUNT_ATTR_NOSUID, unix.MS_NOSUID, "nosuid"},
	{unix.MOUNT_ATTR_NODEV, unix.MS_NODEV, "nodev"},
	{unix.MOUNT_ATTR_NOEXEC, unix.MS_NOEXEC, "noexec"},
}

// restrictMounts gives the mount at dir and those below it restrictions, beside those
// that they have.
func restrictMounts(dir string, attr uint64) error {
	err := unix.MountSetattr(-1, dir, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr})
	if !isRefused(err) {
		return os.NewSyscallError("mount_setattr", err)
	}
	mounts, err := visibleMounts(dir)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		// What a more privileged namespace has set can't be left out.
		flags := classicFlags(attr) | setFlags(m)
		if err := unix.Mount("", m.Mountpoint, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
			return &os.PathError{Op: "remount", Path: m.Mountpoint, Err: err}
		}
	}
	return nil
}

// visibleMounts returns the mounts at dir and below it, parents first, without those
// that others hide.
func visibleMounts(dir string) ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	return slices.DeleteFunc(mounts, func(m *mountinfo.Info) bool {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, m.Mountpoint, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
		return err != nil || st.Mnt_id != uint64(m.ID) //nolint:gosec // never negative
	}), err
}

// isRefused reports whether err may be a seccomp filter's, or that of a kernel
// without the call.
func isRefused(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) }

// classicFlags returns the flags of mount(2) for attributes.
func classicFlags(attr uint64) (flags uintptr) {
	for _, r := range restrictions {
		if uintptr(attr)&r.attr != 0 {
			flags |= r.flag
		}
	}
	return flags
}

// setFlags returns the restrictions of a mount.
func setFlags(m *mountinfo.Info) (flags uintptr) {
	for name := range strings.SplitSeq(m.Options, ",") {
		for _, r := range restrictions {
			if name == r.name {
				flags |= r.flag
			}
		}
	}
	return flags
}

// withoutAttributes returns mounts of a container that come to the same without
// mount_setattr(2), if that is refused. Each mount below a bound directory is then
// bound once more, since mount(2) changes one mount at a time.
func withoutAttributes(mounts []*configs.Mount) ([]*configs.Mount, error) {
	// The kernel looks for the path, which is none, after a filter has had its say.
	if err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); !isRefused(err) {
		return mounts, nil
	}
	var all []*configs.Mount
	for _, m := range mounts {
		all = append(all, m)
		if m.RecAttr == nil {
			continue
		}
		flags := int(classicFlags(m.RecAttr.Attr_set))
		m.Flags, m.RecAttr = m.Flags|flags, nil
		if m.Flags&unix.MS_REC == 0 {
			continue
		}
		source, err := filepath.EvalSymlinks(m.Source)
		if err != nil {
			return nil, err
		}
		below, err := visibleMounts(source)
		if err != nil {
			return nil, err
		}
		for _, b := range below {
			rest := strings.TrimPrefix(b.Mountpoint, source)
			if rest == "" {
				continue // m itself
			}
			all = append(all, &configs.Mount{
				Source: b.Mountpoint, Destination: filepath.Join(m.Destination, rest), Device: "bind",
				// Those below are locked to it, and bound in their turn.
				Flags: unix.MS_BIND | unix.MS_REC | flags | int(setFlags(b)),
			})
		}
	}
	return all, nil
}
