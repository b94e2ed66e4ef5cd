package snapshot

import (
	"maps"
	"os"

	"golang.org/x/sys/unix"
)

// attrs is what a directory has besides its entries.
type attrs struct {
	mode     uint32 // permission, setuid, setgid and sticky bits
	uid, gid int
	mtime    unix.Timespec
	xattrs   map[string]string // those that go into an archive, or come from one
}

// modeBits are the bits of st_mode that chmod sets.
const modeBits = 0o7777

// implicitAttrs are those of a directory that no layer has an entry for.
var implicitAttrs = attrs{mode: 0o755}

func statAttrs(st *unix.Stat_t) attrs {
	return attrs{mode: st.Mode & modeBits, uid: int(st.Uid), gid: int(st.Gid), mtime: st.Mtim}
}

// readAttrs returns the attributes of the directory fd.
func readAttrs(fd int) (attrs, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return attrs{}, os.NewSyscallError("fstat", err)
	}
	a := statAttrs(&st)
	var err error
	a.xattrs, err = readXattrsFd(fd)
	return a, err
}

func (a attrs) equal(b attrs) bool {
	return a.mode == b.mode && a.uid == b.uid && a.gid == b.gid && a.mtime == b.mtime && maps.Equal(a.xattrs, b.xattrs)
}

// apply gives the open file fd the attributes a, in the order that keeps the
// later from undoing the earlier: chown clears set-ID bits and capabilities.
func (a attrs) apply(fd int, chown bool) error {
	if chown {
		if err := unix.Fchown(fd, a.uid, a.gid); err != nil {
			return explainChown(err, a.uid, a.gid)
		}
	}
	err := writeXattrs(a.xattrs, func(name string, value []byte) error { return unix.Fsetxattr(fd, name, value, 0) })
	if err != nil {
		return err
	}
	if err := unix.Fchmod(fd, a.mode); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	return setTime(fd, a.mtime)
}

// setTime sets access and modification time of the open file fd.
func setTime(fd int, t unix.Timespec) error {
	return os.NewSyscallError("utimensat", futimens(fd, &[2]unix.Timespec{t, t}))
}

// copyRoot gives the directory to the attributes of the directory from.
func copyRoot(from, to string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := readAttrs(int(f.Fd()))
	if err != nil {
		return &os.PathError{Op: "read attributes", Path: from, Err: err}
	}
	t, err := os.Open(to)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := a.apply(int(t.Fd()), true); err != nil {
		return &os.PathError{Op: "set attributes", Path: to, Err: err}
	}
	return nil
}
