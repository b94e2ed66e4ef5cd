package emulate

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot/owners"
)

// credentials are what the kernel says of a caller.
type credentials struct {
	uid, gid uint32 // of new files
	groups   []uint32
	umask    uint32
	capable  bool // of making devices
}

func (w *worker) credentials() (*credentials, error) {
	b, err := os.ReadFile(w.proc("status"))
	if err != nil {
		return nil, err
	}
	if !w.valid() {
		return nil, unix.ESRCH
	}
	status := string(b)
	c := &credentials{umask: umaskOf(status)}
	for name, to := range map[string]*uint32{"Uid": &c.uid, "Gid": &c.gid} {
		ids := strings.Fields(statusLine(status, name)) // real, effective, saved, of files
		if len(ids) != 4 {
			return nil, unix.EPERM
		}
		n, err := strconv.ParseUint(ids[filesID], 10, 32)
		if err != nil {
			return nil, err
		}
		*to = uint32(n)
	}
	for group := range strings.FieldsSeq(statusLine(status, "Groups")) {
		n, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return nil, err
		}
		c.groups = append(c.groups, uint32(n))
	}
	c.capable = makesDevices(status, "CapEff") || w.weak && c.uid == 0
	return c, nil
}

// makesDevices reports whether the set of capabilities called name holds CAP_MKNOD.
func makesDevices(status, name string) bool {
	set, err := strconv.ParseUint(statusLine(status, name), 16, 64)
	return err == nil && set>>unix.CAP_MKNOD&1 != 0
}

// as calls f with the caller's user and groups for files. They are this thread's alone.
func (c *credentials) as(f func() error) error {
	if c.uid == 0 && c.gid == 0 {
		return f()
	}
	own, err := unix.Getgroups()
	if err != nil {
		return err
	}
	before := make([]uint32, 0, len(own))
	for _, g := range own {
		before = append(before, uint32(g))
	}
	if err := setGroups(c.groups); err != nil {
		return err
	}
	err = unix.Setfsgid(int(c.gid))
	if err == nil {
		err = unix.Setfsuid(int(c.uid))
	}
	if err == nil {
		err = f()
	}
	for _, back := range []error{unix.Setfsuid(0), unix.Setfsgid(0), setGroups(before)} {
		if back != nil {
			panic(fmt.Sprintf("emulate devices: be root again: %v", back)) // as root is what this thread answers
		}
	}
	return err
}

// setGroups sets the supplementary groups of this thread; setgroups of the standard
// library sets the groups of all threads.
func setGroups(groups []uint32) error {
	var first *uint32
	if len(groups) > 0 {
		first = &groups[0]
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(first)), 0); errno != 0 { //nolint:gosec // the call takes an address
		return errno
	}
	return nil
}

// mknodDevice makes a device. Other files are the kernel's to make.
func (w *worker) mknodDevice(dir int32, path, mode, dev uint64) answer {
	kind := uint32(mode) & unix.S_IFMT
	mark := kind == unix.S_IFCHR && uint32(dev) == 0
	if kind != unix.S_IFCHR && kind != unix.S_IFBLK || mark && w.marks {
		return passed
	}
	c, err := w.credentials()
	if err != nil || !c.capable || mark { // as overlayfs
		return answer{errno: unix.EPERM}
	}
	b := &birth{}
	if b.parent, b.name, err = w.newName(dir, path); err != nil {
		return passed
	}
	defer b.close()
	permissions := uint32(mode) & 0o7777 &^ c.umask
	err = c.as(func() error { return w.makeDevice(b, kind|permissions, dev&(1<<32-1)) })
	if err == unix.ENOTSUP { //nolint:errorlint // a bare error of the kernel
		err = unix.EPERM // a file system that no image is made of
	}
	if err != nil {
		return refusal(err)
	}
	return w.born(b, nil, 0, w.sendSuccess)
}

func (w *worker) makeDevice(b *birth, mode uint32, dev uint64) error {
	if err := w.keeper.Mknodat(b.parent, b.name, mode, dev); err != nil {
		return err
	}
	// This thread's umask counts for a real one, if that is still there: another file may
	// have taken its name, a link to one of this machine's.
	fd, err := unix.Openat(b.parent, b.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil // it was made
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != mode&unix.S_IFMT || st.Rdev != dev {
		return nil
	}
	return unix.Fchmodat(unix.AT_FDCWD, fdPath(fd), mode&0o7777, 0)
}

// maxAttribute is the size of the longest value that an extended attribute has.
const maxAttribute = 1 << 16

// guardRecords sets an extended attribute for a caller that may make no devices: one of the
// records would make its file one. The kernel would read the name again, which may be
// another by then. The others may set what they like.
func (w *worker) guardRecords(r *request, open func() (int, error)) answer {
	c, err := w.credentials()
	if err != nil {
		return answer{errno: unix.EPERM}
	}
	if c.capable {
		return passed
	}
	// The caller's memory and files are the caller's to read: root without CAP_SYS_PTRACE,
	// as in a container, may not.
	return answerOf(c.as(func() error { return w.setUnlessRecord(r, open) }))
}

// setUnlessRecord is setxattr(2) with the arguments of r of the file that open opens, unless the
// attribute is a record.
func (w *worker) setUnlessRecord(r *request, open func() (int, error)) error {
	name, err := w.readString(r.args[1])
	if err != nil {
		return err
	}
	if owners.Own(name) || !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "system.") {
		return unix.EPERM
	}
	if r.args[3] > maxAttribute {
		return unix.E2BIG
	}
	value := make([]byte, r.args[3])
	if len(value) > 0 {
		if _, err := w.read(r.args[2], value); err != nil {
			return err
		}
	}
	fd, err := open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setxattr(fdPath(fd), name, value, int(r.args[4]))
}

// newerDeviceCalls returns those that every architecture has.
func newerDeviceCalls() []call {
	return []call{
		{name: "mknodat", number: unix.SYS_MKNODAT, handle: func(w *worker, r *request) answer {
			return w.mknodDevice(int32(r.args[0]), r.args[1], r.args[2], r.args[3])
		}},
		{name: "setxattr", number: unix.SYS_SETXATTR, handle: func(w *worker, r *request) answer {
			return w.guardRecords(r, func() (int, error) { return w.openAt(unix.AT_FDCWD, r.args[0], 0) })
		}},
		{name: "lsetxattr", number: unix.SYS_LSETXATTR, handle: func(w *worker, r *request) answer {
			return w.guardRecords(r, func() (int, error) { return w.openAt(unix.AT_FDCWD, r.args[0], unix.AT_SYMLINK_NOFOLLOW) })
		}},
		{name: "fsetxattr", number: unix.SYS_FSETXATTR, handle: func(w *worker, r *request) answer {
			return w.guardRecords(r, func() (int, error) { return w.openDescriptor(int32(r.args[0])) })
		}},
	}
}
