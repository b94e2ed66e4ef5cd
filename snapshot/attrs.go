package snapshot

import (
	"fmt"
	"maps"
	"os"

	"github.com/bobbuild/bob/snapshot/internal/idmap"
	"github.com/bobbuild/bob/snapshot/owners"
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
func readAttrs(fd int, keeper owners.Keeper) (attrs, error) {
	var st unix.Stat_t
	if err := keeper.Fstat(fd, &st); err != nil {
		return attrs{}, os.NewSyscallError("fstat", err)
	}
	a := statAttrs(&st)
	var err error
	a.xattrs, err = readXattrsFd(fd, keeper, st.Mode)
	return a, err
}

func (a attrs) equal(b attrs) bool {
	return a.mode == b.mode && a.uid == b.uid && a.gid == b.gid && a.mtime == b.mtime && maps.Equal(a.xattrs, b.xattrs)
}

// sets reports whether a hard link's entry with the attributes a changes a file of the
// mode st_mode that has the attributes of.
func (a attrs) sets(of attrs, mode uint32) bool {
	for name, value := range a.xattrs {
		if name == capabilityXattr {
			value = string(normalCapability([]byte(value)))
		}
		if applied(name) && of.xattrs[name] != value {
			return true
		}
	}
	symlink := mode&unix.S_IFMT == unix.S_IFLNK
	return a.uid != of.uid || a.gid != of.gid || !symlink && (a.mode != of.mode || a.mtime != of.mtime)
}

// apply gives the open file or directory fd the attributes a, in the order that
// keeps the later from undoing the earlier: chown clears set-ID bits and
// capabilities.
func (a attrs) apply(fd int, chown bool, keeper owners.Keeper) error {
	uid, gid := owners.Unchanged, owners.Unchanged
	if chown {
		uid, gid = a.uid, a.gid
	}
	if err := keeper.Fset(fd, uid, gid, a.mode); err != nil {
		return idmap.Explain(err, uid, gid, keeper)
	}
	err := writeXattrs(a.xattrs, func(name string, value []byte) error { return keeper.Fsetxattr(fd, name, value) })
	if err != nil {
		return err
	}
	return setTime(fd, a.mtime)
}

// applyAt is apply to the new entry base of the directory dir, which is neither a regular
// file nor a directory.
func (a attrs) applyAt(dir int, base string, chown, symlink bool, keeper owners.Keeper) error {
	// An owner may be recorded as the time of last access: times come before an owner, and
	// without one that time stays.
	atime := a.mtime
	if !chown {
		atime = unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	err := unix.UtimesNanoAt(dir, base, []unix.Timespec{atime, a.mtime}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	if chown {
		if err := keeper.Fchownat(dir, base, a.uid, a.gid); err != nil {
			return idmap.Explain(err, a.uid, a.gid, keeper)
		}
	}
	err = writeXattrs(a.xattrs, func(name string, value []byte) error { return keeper.Setxattrat(dir, base, name, value) })
	if err != nil || symlink {
		return err
	}
	// Not followed: the entry was made just now and isn't a link.
	if err := keeper.Fchmodat(dir, base, a.mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return nil
}

// setTime sets access and modification time of the open file fd.
func setTime(fd int, t unix.Timespec) error {
	return os.NewSyscallError("utimensat", futimens(fd, &[2]unix.Timespec{t, t}))
}

// copyRoot gives the directory to the attributes of the directory from.
func copyRoot(from, to string, keeper owners.Keeper) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := readAttrs(int(f.Fd()), keeper)
	if err != nil {
		return &os.PathError{Op: "read attributes", Path: from, Err: err}
	}
	t, err := os.Open(to)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := a.apply(int(t.Fd()), true, keeper); err != nil {
		return &os.PathError{Op: "set attributes", Path: to, Err: err}
	}
	return nil
}
