package emulate

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot/owners"
)

// Each of the emulated calls on files opens the file, or the directory of a new one,
// as the caller would have, and does to it what package owners does. If it can't be
// opened the call is left to the kernel, which finds the same reason.

func fchown(w *worker, r *request) answer {
	return w.chownDescriptor(int32(r.args[0]), uint32(r.args[1]), uint32(r.args[2]))
}

func fchownat(w *worker, r *request) answer {
	return w.chown(int32(r.args[0]), r.args[1], r.args[2], r.args[3], r.args[4])
}

func fchmod(w *worker, r *request) answer {
	fd, err := w.openDescriptor(int32(r.args[0]))
	if err != nil {
		return passed
	}
	return w.chmodOpened(fd, uint32(r.args[1]))
}

func fchmodat(w *worker, r *request) answer {
	return w.chmod(int32(r.args[0]), r.args[1], r.args[2], 0)
}

func fchmodat2(w *worker, r *request) answer {
	return w.chmod(int32(r.args[0]), r.args[1], r.args[2], r.args[3])
}

func openat(w *worker, r *request) answer {
	return w.openNew(int32(r.args[0]), r.args[1], r.args[2], r.args[3])
}

func mkdirat(w *worker, r *request) answer { return w.mkdir(int32(r.args[0]), r.args[1], r.args[2]) }

func mknodat(w *worker, r *request) answer {
	return w.mknod(int32(r.args[0]), r.args[1], r.args[2], r.args[3])
}

func symlinkat(w *worker, r *request) answer {
	return w.symlink(r.args[0], int32(r.args[1]), r.args[2])
}

func (w *worker) chown(dir int32, path, uid, gid, flags uint64) answer {
	fd, err := w.openAt(dir, path, flags)
	if err != nil {
		return passed
	}
	return w.chownOpened(fd, uint32(uid), uint32(gid))
}

func (w *worker) chownDescriptor(n int32, uid, gid uint32) answer {
	fd, err := w.openDescriptor(n)
	if err != nil {
		return passed
	}
	return w.chownOpened(fd, uid, gid)
}

// chownOpened changes the owner of fd, which it closes.
func (w *worker) chownOpened(fd int, uid, gid uint32) answer {
	defer unix.Close(fd)
	id, err := w.identity()
	if err != nil {
		return passed
	}
	if !id.privileged() {
		var st unix.Stat_t
		if err := owners.Records.Fstat(fd, &st); err != nil {
			return refusal(err)
		}
		if st.Uid != id.uid[filesID] || uid != unset && uid != st.Uid || gid != unset && gid != st.Gid && !id.member(gid) {
			return answer{errno: unix.EPERM}
		}
	}
	err = owners.Records.Fchown(fd, signed(uid), signed(gid))
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && ofKernel(fd) {
		err = nil // a file system that no image is made of
	}
	return answerOf(err)
}

// signed returns an ID as package owners takes it.
func signed(id uint32) int {
	if id == unset {
		return owners.Unchanged
	}
	return int(id)
}

// ofKernel reports whether the file is one that no user can make.
func ofKernel(fd int) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return false
	}
	switch st.Type {
	case unix.PIPEFS_MAGIC, unix.SOCKFS_MAGIC, unix.ANON_INODE_FS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC:
		return true
	}
	return false
}

func (w *worker) chmod(dir int32, path, mode, flags uint64) answer {
	fd, err := w.openAt(dir, path, flags)
	if err != nil {
		return passed
	}
	return w.chmodOpened(fd, uint32(mode))
}

// chmodOpened changes the mode of fd, which it closes.
func (w *worker) chmodOpened(fd int, mode uint32) answer {
	defer unix.Close(fd)
	id, err := w.identity()
	if err != nil {
		return passed
	}
	var st unix.Stat_t
	if err := owners.Records.Fstat(fd, &st); err != nil {
		return refusal(err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return answer{errno: unix.EOPNOTSUPP}
	}
	if !id.privileged() {
		if st.Uid != id.uid[filesID] {
			return answer{errno: unix.EPERM}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && !id.member(st.Gid) {
			mode &^= unix.S_ISGID
		}
	}
	return answerOf(owners.Records.Fchmod(fd, mode))
}

func (w *worker) stat(dir int32, path, buffer, flags uint64) answer {
	fd, err := w.openAt(dir, path, flags)
	if err != nil {
		return passed
	}
	return w.statOpened(fd, buffer)
}

func newfstatat(w *worker, r *request) answer {
	if r.args[3]&unix.AT_EMPTY_PATH != 0 && w.emptyPath(r.args[1]) {
		return w.statDescriptor(int32(r.args[0]), r.args[2])
	}
	return w.stat(int32(r.args[0]), r.args[1], r.args[2], r.args[3])
}

func fstat(w *worker, r *request) answer {
	return w.statDescriptor(int32(r.args[0]), r.args[1])
}

func (w *worker) statDescriptor(n int32, buffer uint64) answer {
	var disk unix.Stat_t
	path := w.directory(n)
	if unix.Stat(path, &disk) != nil || plain(path, &disk) {
		return passed
	}
	fd, err := w.openDescriptor(n)
	if err != nil {
		return passed
	}
	return w.statOpened(fd, buffer)
}

// plain reports whether nothing is recorded of the file that the path leads to, so
// that the kernel may tell its status, st. That is most of them.
func plain(path string, st *unix.Stat_t) bool {
	if kind := st.Mode & unix.S_IFMT; st.Uid != 0 || st.Gid != 0 || kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return false
	}
	_, err := unix.Getxattr(path, owners.Attribute, nil)
	return err == unix.ENODATA || err == unix.ENOTSUP
}

// statOpened tells the status of fd, which it closes.
func (w *worker) statOpened(fd int, buffer uint64) answer {
	defer unix.Close(fd)
	var st unix.Stat_t
	if !recorded(fd, &st) {
		return passed
	}
	status, errno := w.layout(&st)
	if errno != 0 {
		return answer{errno: errno}
	}
	return answerOf(w.write(buffer, status))
}

// recorded reports whether the status of fd is another than the kernel tells, and
// puts it into st.
func recorded(fd int, st *unix.Stat_t) bool {
	var disk unix.Stat_t
	if unix.Fstat(fd, &disk) != nil || plain(fdPath(fd), &disk) {
		return false
	}
	return owners.Records.Fstat(fd, st) == nil && *st != disk
}

func statx(w *worker, r *request) answer {
	fd, err := w.openAt(int32(r.args[0]), r.args[1], r.args[2])
	if err != nil {
		return passed
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if !recorded(fd, &st) {
		return passed
	}
	var sx unix.Statx_t
	flags := int(r.args[2]) & (unix.AT_STATX_FORCE_SYNC | unix.AT_STATX_DONT_SYNC)
	if err := unix.Statx(fd, "", flags|unix.AT_EMPTY_PATH, int(uint32(r.args[3])), &sx); err != nil {
		return passed
	}
	sx.Uid, sx.Gid, sx.Mode = st.Uid, st.Gid, uint16(st.Mode)
	sx.Size, sx.Blocks = uint64(st.Size), uint64(st.Blocks)
	sx.Rdev_major, sx.Rdev_minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	return answerOf(w.write(r.args[4], bytesOf(&sx)))
}

func setxattr(w *worker, r *request) answer {
	return w.setAttribute(r, func() (int, error) { return w.openAt(unix.AT_FDCWD, r.args[0], 0) })
}

func lsetxattr(w *worker, r *request) answer {
	return w.setAttribute(r, func() (int, error) { return w.openAt(unix.AT_FDCWD, r.args[0], unix.AT_SYMLINK_NOFOLLOW) })
}

func fsetxattr(w *worker, r *request) answer {
	return w.setAttribute(r, func() (int, error) { return w.openDescriptor(int32(r.args[0])) })
}

// setAttribute sets an extended attribute of the file that open opens.
func (w *worker) setAttribute(r *request, open func() (int, error)) answer {
	name, err := w.readString(r.args[1])
	if err != nil {
		return passed
	}
	switch {
	case owners.Own(name) && name != owners.DeviceAttribute: // which a bob in there may use
		return answer{} // comes along with the owner, to which it adds nothing
	case name == "security.capability":
		if id, err := w.identity(); err == nil && !id.privileged() {
			return answer{errno: unix.EPERM}
		}
	case strings.HasPrefix(name, "system.posix_acl_"):
		return w.setACL(r, name, open)
	}
	return passed
}

// setACL sets an access control list, which no layer has. One that names other IDs
// than root's can't be set, and is not missed.
func (w *worker) setACL(r *request, name string, open func() (int, error)) answer {
	if r.args[3] > pageSize {
		return passed
	}
	value := make([]byte, r.args[3])
	if len(value) > 0 {
		if _, err := w.read(r.args[2], value); err != nil {
			return passed
		}
	}
	fd, err := open()
	if err != nil {
		return passed
	}
	defer unix.Close(fd)
	err = unix.Setxattr(fdPath(fd), name, value, int(r.args[4]))
	if err == unix.EINVAL { //nolint:errorlint // a bare error of the kernel
		err = nil
	}
	return answerOf(err)
}
