package owners

import (
	"errors"

	"golang.org/x/sys/unix"
)

// A Keeper is the way in which files have owners. Its methods are safe for
// concurrent use, but two that change one file may lose what one of them changes.
// They return bare errors of the kernel, unless a record is damaged.
type Keeper uint8

// The keepers.
const (
	// Disk has all as the kernel has it.
	Disk Keeper = iota
	// Devices has owners and modes as the kernel has them, and records the devices
	// that the kernel doesn't let this process make.
	Devices
	// Harmless is Devices, but records all devices except those that every container
	// has. It is for where nothing else keeps commands from opening the machine's disks.
	Harmless
	// Stubs is Devices, but records all devices. It is for fuse-overlayfs, on which real
	// ones can't be changed.
	Stubs
	// Records has all as recorded; see the package documentation.
	Records
)

// Recording returns the keeper of a tree of an image, for a process that can or can't
// give files away.
func Recording(oneID bool) Keeper {
	if oneID {
		return Records
	}
	return Devices
}

// Fstat is fstat(2), also of a descriptor opened with O_PATH.
func (k Keeper) Fstat(fd int, st *unix.Stat_t) error {
	if err := retry(func() error { return unix.Fstat(fd, st) }); err != nil {
		return err
	}
	return k.override(opened(fd), st)
}

// Fstatat is fstatat(2) of name itself, should it be a link. dir may be
// unix.AT_FDCWD here and in the other methods.
func (k Keeper) Fstatat(dir int, name string, st *unix.Stat_t) error {
	err := retry(func() error { return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return err
	}
	return k.override(entry(dir, name), st)
}

// override puts into st, which the kernel filled, what the keeper has recorded of f.
func (k Keeper) override(f file, st *unix.Stat_t) error {
	switch k {
	case Records:
		return f.override(st)
	case Devices, Harmless, Stubs:
		return f.overrideDevice(st)
	case Disk:
	}
	return nil
}

// Fchown is fchown(2). As the kernel does, it takes set-ID bits and capabilities
// from what isn't a directory. With Records fd may be one of O_PATH.
func (k Keeper) Fchown(fd, uid, gid int) error {
	if k != Records {
		return retry(func() error { return unix.Fchown(fd, uid, gid) })
	}
	return opened(fd).chown(uid, gid)
}

// Fchownat is Fchown of name itself, should it be a link.
func (k Keeper) Fchownat(dir int, name string, uid, gid int) error {
	if k != Records {
		return retry(func() error { return unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW) })
	}
	return held(dir, name, func(f file) error { return f.chown(uid, gid) })
}

// Fchmod is fchmod(2). With Records fd may be one of O_PATH.
func (k Keeper) Fchmod(fd int, mode uint32) error {
	if k != Records {
		return retry(func() error { return unix.Fchmod(fd, mode&permissions) })
	}
	return opened(fd).chmod(mode)
}

// Fchmodat is Fchmod of name, which must not be a link.
func (k Keeper) Fchmodat(dir int, name string, mode uint32) error {
	if k != Records {
		return retry(func() error { return unix.Fchmodat(dir, name, mode&permissions, 0) })
	}
	return held(dir, name, func(f file) error { return f.chmod(mode) })
}

// Fset is Fchown and then Fchmod of a regular file or a directory.
func (k Keeper) Fset(fd, uid, gid int, mode uint32) error {
	if k != Records {
		if uid != Unchanged || gid != Unchanged {
			if err := k.Fchown(fd, uid, gid); err != nil {
				return err
			}
		}
		return k.Fchmod(fd, mode)
	}
	return opened(fd).change(func(st *unix.Stat_t) {
		own(st, uid, gid)
		st.Mode = st.Mode&unix.S_IFMT | mode&permissions
	})
}

// Mknodat is mknodat(2). Except with Disk, a device that isn't real is a regular file with a
// record: one that the kernel refuses, one that the keeper doesn't ask it for, and always
// the character device 0:0, which would remove the name in overlay format.
func (k Keeper) Mknodat(dir int, name string, mode uint32, dev uint64) error {
	kind := mode & unix.S_IFMT
	device := k != Disk && (kind == unix.S_IFCHR || kind == unix.S_IFBLK)
	if !device || k.real(mode, dev) {
		err := retry(func() error { return unix.Mknodat(dir, name, mode, int(dev)) })
		if !device || !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return standIn(dir, name, func(fd int) error {
		if k == Records {
			return opened(fd).change(func(st *unix.Stat_t) { st.Mode, st.Rdev = mode, dev })
		}
		if err := opened(fd).setxattr(DeviceAttribute, []byte(record{mode: mode, rdev: dev}.String())); err != nil {
			return err
		}
		return retry(func() error { return unix.Fchmod(fd, mode&permissions) })
	})
}

// real reports whether the kernel is asked for a device.
func (k Keeper) real(mode uint32, dev uint64) bool {
	switch k {
	case Devices:
		return mode&unix.S_IFMT != unix.S_IFCHR || dev != 0
	case Harmless:
		return IsHarmless(mode, dev)
	case Disk, Stubs, Records:
	}
	return false
}

// IsHarmless reports whether a device of the mode st_mode is one that every container has:
// null, zero, full, random, urandom or tty.
func IsHarmless(mode uint32, dev uint64) bool {
	if mode&unix.S_IFMT != unix.S_IFCHR {
		return false
	}
	switch dev {
	case unix.Mkdev(1, 3), unix.Mkdev(1, 5), unix.Mkdev(1, 7), unix.Mkdev(1, 8), unix.Mkdev(1, 9), unix.Mkdev(5, 0):
		return true
	}
	return false
}

// standIn makes the file of a recorded device, and takes it away if it can't be recorded.
func standIn(dir int, name string, record func(fd int) error) error {
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := record(fd); err != nil {
		_ = unix.Unlinkat(dir, name, 0)
		return err
	}
	return nil
}
