// Package mountattr gives mounts restrictions, the attributes of mount_setattr(2), also
// where a filter or the kernel refuses that call.
package mountattr

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
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

// Restrict gives the mount at dir and those below it restrictions, beside those
// that they have.
func Restrict(dir string, attr uint64) error {
	err := unix.MountSetattr(-1, dir, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr})
	if !IsRefused(err) {
		return os.NewSyscallError("mount_setattr", err)
	}
	mounts, err := Visible(dir)
	if err != nil {
		return err
	}
	for _, m := range mounts {
		// What a more privileged namespace has set can't be left out.
		flags := Flags(attr) | FlagsOf(m)
		if err := unix.Mount("", m.Mountpoint, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
			return &os.PathError{Op: "remount", Path: m.Mountpoint, Err: err}
		}
	}
	return nil
}

// Visible returns the mounts at dir and below it, parents first, without those
// that others hide.
func Visible(dir string) ([]*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	return slices.DeleteFunc(mounts, func(m *mountinfo.Info) bool {
		var st unix.Statx_t
		err := unix.Statx(unix.AT_FDCWD, m.Mountpoint, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID, &st)
		return err != nil || st.Mnt_id != uint64(m.ID)
	}), err
}

// IsRefused reports whether err may come from a seccomp filter, or from a kernel without
// the call.
func IsRefused(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) }

// Flags returns the flags of mount(2) for attributes.
func Flags(attr uint64) (flags uintptr) {
	for _, r := range restrictions {
		if uintptr(attr)&r.attr != 0 {
			flags |= r.flag
		}
	}
	return flags
}

// FlagsOf returns the restrictions of a mount.
func FlagsOf(m *mountinfo.Info) (flags uintptr) {
	for name := range strings.SplitSeq(m.Options, ",") {
		for _, r := range restrictions {
			if name == r.name {
				flags |= r.flag
			}
		}
	}
	return flags
}
