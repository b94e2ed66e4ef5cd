package owners

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Unchanged in place of a user or group ID leaves that as it is.
const Unchanged = -1

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
