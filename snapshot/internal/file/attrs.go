// Package file reads and makes single files with all that they have: attributes, extended
// attributes, content. Calls name a file by an open directory and a path below it, and
// follow no link.
package file

import (
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/bobbuild/bob/snapshot/internal/idmap"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// Attrs is what a directory has besides its entries.
type Attrs struct {
	Mode     uint32 // permission, setuid, setgid and sticky bits
	UID, GID int
	Mtime    unix.Timespec
	Xattrs   map[string]string // those that go into an archive, or come from one
	Strict   bool              // an extended attribute that the kernel finds malformed is an error
}

// modeBits are the bits of st_mode that chmod sets.
const modeBits = 0o7777

// ImplicitAttrs are the attributes of a directory that no layer has an entry for.
var ImplicitAttrs = Attrs{Mode: 0o755}

// AttrsOf returns what st says of a file: all but its extended attributes.
func AttrsOf(st *unix.Stat_t) Attrs {
	return Attrs{Mode: st.Mode & modeBits, UID: int(st.Uid), GID: int(st.Gid), Mtime: st.Mtim}
}

// ReadAttrs returns the attributes of the directory fd.
func ReadAttrs(fd int, keeper owners.Keeper) (Attrs, error) {
	var st unix.Stat_t
	if err := keeper.Fstat(fd, &st); err != nil {
		return Attrs{}, os.NewSyscallError("fstat", err)
	}
	a := AttrsOf(&st)
	var err error
	a.Xattrs, err = readXattrs(fd, keeper, st.Mode)
	return a, err
}

// AttrsAt returns the attributes of the entry base of the directory dir, which has the
// status st and can't be opened.
func AttrsAt(dir int, base string, st *unix.Stat_t, keeper owners.Keeper) (a Attrs, err error) {
	a = AttrsOf(st)
	a.Xattrs, err = readXattrsOf(Path(dir, base), keeper, st.Mode)
	return a, err
}

// Archived returns a with the extended attributes that an archive holds, in the form that
// they have there.
func (a Attrs) Archived() Attrs {
	xattrs := map[string]string{}
	for name, value := range a.Xattrs {
		if name == capabilityXattr {
			value = string(normalCapability([]byte(value)))
		}
		if owners.Carried(name) {
			xattrs[name] = value
		}
	}
	a.Xattrs = xattrs
	return a
}

// Layered returns a with the extended attributes that a layer holds. As in containerd's
// layers, and so BuildKit's, that is what a program needs to run: user attributes live as
// long as the build and are gone in the image.
func (a Attrs) Layered() Attrs {
	value, ok := a.Xattrs[capabilityXattr]
	a.Xattrs = nil
	if ok {
		a.Xattrs = map[string]string{capabilityXattr: value}
	}
	return a
}

// Linked returns the attributes of a file with the attributes a, a symbolic link or not,
// after the entry of a hard link to it, of the attributes by.
func (a Attrs) Linked(by Attrs, symlink bool) Attrs {
	xattrs := map[string]string{}
	maps.Copy(xattrs, a.Xattrs)
	if a.UID != by.UID || a.GID != by.GID {
		delete(xattrs, capabilityXattr) // as chown(2) does
	}
	maps.Copy(xattrs, by.Xattrs)
	if symlink {
		by.Mode, by.Mtime = a.Mode, a.Mtime
	}
	by.Xattrs = xattrs
	return by
}

// Equal reports whether a and b are the same.
func (a Attrs) Equal(b Attrs) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Mtime == b.Mtime && maps.Equal(a.Xattrs, b.Xattrs)
}

// Apply gives the open file or directory fd the attributes a, in the order that
// keeps the later from undoing the earlier: chown clears set-ID bits and
// capabilities.
func (a Attrs) Apply(fd int, chown bool, keeper owners.Keeper) error {
	uid, gid := owners.Unchanged, owners.Unchanged
	if chown {
		uid, gid = a.UID, a.GID
	}
	if err := keeper.Fset(fd, uid, gid, a.Mode); err != nil {
		return idmap.Explain(err, uid, gid, keeper)
	}
	err := writeXattrs(a, func(name string, value []byte) error { return keeper.Fsetxattr(fd, name, value) })
	if err != nil {
		return err
	}
	return SetTime(fd, a.Mtime)
}

// ApplyAt is Apply to the new entry base of the directory dir, which is neither a regular
// file nor a directory.
func (a Attrs) ApplyAt(dir int, base string, chown, symlink bool, keeper owners.Keeper) error {
	// An owner may be recorded as the time of last access: times come before an owner, and
	// without one that time stays.
	atime := a.Mtime
	if !chown {
		atime = unix.Timespec{Nsec: unix.UTIME_OMIT}
	}
	err := unix.UtimesNanoAt(dir, base, []unix.Timespec{atime, a.Mtime}, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	if chown {
		if err := keeper.Fchownat(dir, base, a.UID, a.GID); err != nil {
			return idmap.Explain(err, a.UID, a.GID, keeper)
		}
	}
	err = writeXattrs(a, func(name string, value []byte) error { return keeper.Setxattrat(dir, base, name, value) })
	if err != nil || symlink {
		return err
	}
	// Not followed: the entry was made just now and isn't a link.
	if err := keeper.Fchmodat(dir, base, a.Mode); err != nil {
		return fmt.Errorf("chmod: %w", err)
	}
	return nil
}

// writeXattrs sets the extended attributes of a by set. It leaves out what the file
// system or the user namespace doesn't take, except for capabilities, without which a
// program fails, and for what is malformed if a is Strict. An access control list that
// names an ID outside of the user namespace is not malformed, though the kernel's error
// is the same.
func writeXattrs(a Attrs, set func(name string, value []byte) error) error {
	for name, value := range a.Xattrs {
		if !applied(name) {
			continue
		}
		v := []byte(value)
		if name == capabilityXattr {
			v = normalCapability(v)
		}
		err := set(name, v)
		if err == nil || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if name != capabilityXattr && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) && (!a.Strict || namesUnmapped(name, v))) {
			continue
		}
		return fmt.Errorf("set extended attribute %s: %w", name, err)
	}
	return nil
}

// SetTime sets access and modification time of the open file fd.
func SetTime(fd int, t unix.Timespec) error {
	return os.NewSyscallError("utimensat", futimens(fd, &[2]unix.Timespec{t, t}))
}

// CopyAttrs gives the directory to the attributes of the directory from.
func CopyAttrs(from, to string, keeper owners.Keeper) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := ReadAttrs(int(f.Fd()), keeper)
	if err != nil {
		return &os.PathError{Op: "read attributes", Path: from, Err: err}
	}
	t, err := os.Open(to)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := a.Apply(int(t.Fd()), true, keeper); err != nil {
		return &os.PathError{Op: "set attributes", Path: to, Err: err}
	}
	return nil
}
