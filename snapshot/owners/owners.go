package owners

import (
	"errors"
	"strconv"

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

// Unchanged in place of a user or group ID leaves that as it is.
const Unchanged = -1

const (
	permissions = 0o7777
	setIDs      = unix.S_ISUID | unix.S_ISGID
)

// file is the way to a file that may be of any type.
type file struct {
	path   string
	follow bool // path is a link of /proc that leads to the file
}

// opened is the file of the descriptor fd, which may be one of O_PATH.
func opened(fd int) file { return file{path: fdPath(fd), follow: true} }

// entry is the file called name in the directory fd, itself if it is a link.
func entry(dir int, name string) file {
	if dir == unix.AT_FDCWD {
		return file{path: name}
	}
	return file{path: fdPath(dir) + "/" + name}
}

func fdPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// held calls f for the file called name in dir, itself if it is a link. It opens the
// file first: between two calls of f another process may put a link in its place, which
// chmod(2) would follow out of the tree.
func held(dir int, name string, f func(file) error) error {
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(opened(fd))
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

// overrideDevice puts into st, which the kernel filled, the type and number of the
// device that f stands for. Other records, and damaged ones, are a stranger's.
func (f file) overrideDevice(st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	r, err := f.record(DeviceAttribute)
	if errors.Is(err, errRecord) {
		return nil
	}
	if r != nil && r.mode&unix.S_IFMT != 0 {
		r.become(st)
	}
	return err
}

// override puts into st, which the kernel filled, what is recorded.
func (f file) override(st *unix.Stat_t) error {
	st.Uid, st.Gid = 0, 0
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		r, err := f.record(Attribute)
		if r != nil {
			r.override(st)
		}
		return err
	case unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
		return f.overrideBeside(st)
	default:
		return nil
	}
}

func (f file) chown(uid, gid int) error {
	err := f.change(func(st *unix.Stat_t) { own(st, uid, gid) })
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := f.stat(&st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	for _, name := range []string{capability, prefix + capability} {
		if _, err := f.getxattr(name, nil); none(err) {
			continue // to remove nothing may be forbidden
		}
		if err := f.removexattr(name); err != nil {
			return err
		}
	}
	return nil
}

// own changes the owner in st as the kernel does.
func own(st *unix.Stat_t, uid, gid int) {
	if uid != Unchanged {
		st.Uid = uint32(uid)
	}
	if gid != Unchanged {
		st.Gid = uint32(gid)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		st.Mode &^= unix.S_ISUID
		if st.Mode&unix.S_IXGRP != 0 {
			st.Mode &^= unix.S_ISGID
		}
	}
}

func (f file) chmod(mode uint32) error {
	var disk unix.Stat_t
	if err := f.stat(&disk); err != nil {
		return err
	}
	kind := disk.Mode & unix.S_IFMT
	if err := f.change(func(st *unix.Stat_t) { st.Mode = st.Mode&unix.S_IFMT | mode&permissions }); err != nil || kind == unix.S_IFLNK {
		return err
	}
	// Though it be the same: the time of the last change is another, as after chmod(2).
	if carries(kind) {
		mode = onDisk(kind | mode&permissions)
	}
	return f.setMode(mode & permissions)
}

// change records what f makes of the file's status.
func (f file) change(to func(*unix.Stat_t)) error {
	var disk unix.Stat_t
	if err := f.stat(&disk); err != nil {
		return err
	}
	was := disk
	if err := f.override(&was); err != nil {
		return err
	}
	st := was
	to(&st)
	if !carries(disk.Mode) {
		return f.changeBeside(&disk, &was, &st)
	}
	// The mode comes first: to set an attribute takes leave to write.
	if mode := onDisk(st.Mode); mode != disk.Mode&permissions {
		if err := f.setMode(mode); err != nil {
			return err
		}
	}
	if r := (record{st.Uid, st.Gid, st.Mode, st.Rdev}); r.needed() {
		return f.setxattr(Attribute, []byte(r.String()))
	}
	if err := f.removexattr(Attribute); err != nil && !none(err) {
		return err
	}
	return nil
}

// carries reports whether a file of this mode can have user attributes.
func carries(mode uint32) bool {
	kind := mode & unix.S_IFMT
	return kind == unix.S_IFREG || kind == unix.S_IFDIR
}

// onDisk returns the permissions on the disk of what has the recorded mode.
func onDisk(mode uint32) uint32 {
	let := uint32(0o600)
	if mode&unix.S_IFMT == unix.S_IFDIR {
		let = 0o700
	}
	return mode&permissions&^setIDs | let
}

func (f file) flags() int {
	if f.follow {
		return 0
	}
	return unix.AT_SYMLINK_NOFOLLOW
}

func (f file) stat(st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstatat(unix.AT_FDCWD, f.path, st, f.flags()) })
}

// setMode sets the mode on the disk. The file is no link.
func (f file) setMode(mode uint32) error {
	return retry(func() error { return unix.Fchmodat(unix.AT_FDCWD, f.path, mode, 0) })
}

func (f file) getxattr(name string, b []byte) (n int, err error) {
	err = retry(func() error {
		if f.follow {
			n, err = unix.Getxattr(f.path, name, b)
		} else {
			n, err = unix.Lgetxattr(f.path, name, b)
		}
		return err
	})
	return n, err
}

func (f file) setxattr(name string, value []byte) error {
	return retry(func() error {
		if f.follow {
			return unix.Setxattr(f.path, name, value, 0)
		}
		return unix.Lsetxattr(f.path, name, value, 0)
	})
}

func (f file) removexattr(name string) error {
	return retry(func() error {
		if f.follow {
			return unix.Removexattr(f.path, name)
		}
		return unix.Lremovexattr(f.path, name)
	})
}

// none reports whether err says that there is no such attribute.
func none(err error) bool {
	return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP)
}

// retry calls f until it isn't interrupted.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
