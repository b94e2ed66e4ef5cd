package layers

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"github.com/bobbuild/bob/snapshot/internal/file"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
	"golang.org/x/sys/unix"
)

// Names that mean something in the tar of a layer (OCI image specification 1.1, layer.md).
const (
	WhiteoutPrefix = ".wh."
	OpaqueName     = ".wh..wh..opq"
)

const opaqueXattr = "user.overlay.opaque"

// Marks is the form in which a store says that names are removed, and that directories
// hide those below them.
//
// Overlay format needs a device 0:0 for a removed name and an extended attribute
// for a directory that hides those below. In most containers the store lies on an
// overlay, which refuses the device. Such a store has marks in their place that are
// files, with the names that they have in the tar of a layer: an empty file
// .wh.NAME, and .wh..wh..opq in the directory. No file of a layer can have such a
// name. fuse-overlayfs reads both forms, the kernel's overlay doesn't.
type Marks uint8

// The forms.
const (
	DeviceMarks Marks = iota
	FileMarks
)

// FindMarks tries in the empty directory dir which marks can be made there.
func FindMarks(dir string) (Marks, error) {
	fd, err := unix.Open(dir, file.Directory, 0)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	if DeviceMarks.Whiteout(fd, "whiteout") != nil || DeviceMarks.MakeOpaque(fd) != nil {
		return FileMarks, nil
	}
	return DeviceMarks, nil
}

// Whiteout marks the name base of the directory fd as removed. The error is EEXIST if the
// directory has something of that name itself.
func (m Marks) Whiteout(fd int, base string) error {
	if m == DeviceMarks {
		return unix.Mknodat(fd, base, unix.S_IFCHR, 0)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return unix.EEXIST
	} else if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if len(WhiteoutPrefix+base) > unix.NAME_MAX {
		return fmt.Errorf("its name is too long to be removed, by %d bytes: the store's file system takes no whiteouts: %w",
			len(WhiteoutPrefix+base)-unix.NAME_MAX, unix.ENAMETOOLONG)
	}
	return makeMark(fd, WhiteoutPrefix+base)
}

// MakeOpaque has the directory fd hide those below it.
func (m Marks) MakeOpaque(fd int) error {
	if m == FileMarks {
		return makeMark(fd, OpaqueName)
	}
	if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
		return fmt.Errorf("set extended attribute %s: %w", opaqueXattr, err)
	}
	return nil
}

func makeMark(fd int, name string) error {
	err := unix.Mknodat(fd, name, unix.S_IFREG|0o600, 0)
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// IsOpaque reports whether the directory fd hides those below it.
func (m Marks) IsOpaque(fd int) (bool, error) {
	if m == FileMarks {
		return Exists(fd, OpaqueName)
	}
	var b [2]byte
	n, err := unix.Fgetxattr(fd, opaqueXattr, b[:])
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("get extended attribute %s: %w", opaqueXattr, err)
	}
	return n == 1 && b[0] == 'y', nil
}

// MarkOf reports whether the entry called name is a mark because of its name, and of what.
func (m Marks) MarkOf(name string) (of string, ok bool) {
	of, ok = strings.CutPrefix(name, WhiteoutPrefix)
	return of, ok && m == FileMarks
}

// Hidden reports whether a file says that the name at the path below the directory
// fd is removed. A device in its place shows by itself.
func (m Marks) Hidden(fd int, path string) (bool, error) {
	if m == DeviceMarks {
		return false, nil
	}
	parent, base := relpath.Split(path)
	return Exists(fd, relpath.Join(parent, WhiteoutPrefix+base))
}

// IsMark reports whether the entry name of the directory fd, whose status is st, is a
// mark.
func (m Marks) IsMark(fd int, name string, st *unix.Stat_t) bool {
	_, ok := m.MarkOf(name)
	return ok || IsWhiteout(fd, name, st)
}

// Split sorts the names of a directory of a layer, and returns which of them are removed
// because a file says so. An entry of its own outdoes a mark.
func (m Marks) Split(names []string) (sorted []string, removed map[string]bool) {
	if m == FileMarks {
		removed = map[string]bool{}
		names = slices.DeleteFunc(names, func(n string) bool {
			of, ok := m.MarkOf(n)
			if ok && n != OpaqueName {
				removed[of] = true
			}
			return ok
		})
		for _, n := range names {
			delete(removed, n)
		}
		for n := range removed {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names, removed
}

// IsWhiteout reports whether the entry at path below the directory fd, whose status is
// st, is the mark of a removed name in overlay format. A device 0:0 of an image is
// only recorded, and no mark.
func IsWhiteout(fd int, path string, st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		return false
	}
	var disk unix.Stat_t
	err := unix.Fstatat(fd, path, &disk, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && disk.Mode&unix.S_IFMT == unix.S_IFCHR
}

// Exists reports whether the directory fd has the entry at path.
func Exists(fd int, path string) (bool, error) {
	var st unix.Stat_t
	err := descent.Beneath(fd, path, func(dir int, rest string) error {
		return unix.Fstatat(dir, rest, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stat %q: %w", relpath.Brief(path), err)
	}
	return true, nil
}
