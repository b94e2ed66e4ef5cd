package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/descent"
	"golang.org/x/sys/unix"
)

// Overlay format needs a device 0:0 for a removed name and an extended attribute
// for a directory that hides those below. In most containers the store lies on an
// overlay, which refuses the device. Such a store has marks in their place that are
// files, with the names that they have in the tar of a layer: an empty file
// .wh.NAME, and .wh..wh..opq in the directory. No file of a layer can have such a
// name. fuse-overlayfs reads both forms, the kernel's overlay doesn't.

// fileMarksSuffix is in the name of the directory below "ids" that has file marks.
const fileMarksSuffix = "-marks"

// needsFileMarks tries in the empty directory dir whether overlay format has to do
// with files for marks there.
func needsFileMarks(dir string) (bool, error) {
	fd, err := unix.Open(dir, dirFlags, 0)
	if err != nil {
		return false, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	return makeWhiteout(fd, "whiteout", false) != nil || makeOpaque(fd, false) != nil, nil
}

// makeWhiteout marks the name base of the directory fd as removed. The error is
// EEXIST if the directory has something of that name itself.
func makeWhiteout(fd int, base string, fileMarks bool) error {
	if !fileMarks {
		return unix.Mknodat(fd, base, unix.S_IFCHR, 0)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return unix.EEXIST
	} else if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if len(whiteoutPrefix+base) > unix.NAME_MAX {
		return fmt.Errorf("its name is too long to be removed, by %d bytes: the store's file system takes no whiteouts: %w",
			len(whiteoutPrefix+base)-unix.NAME_MAX, unix.ENAMETOOLONG)
	}
	return makeMark(fd, whiteoutPrefix+base)
}

// makeOpaque has the directory fd hide those below it.
func makeOpaque(fd int, fileMarks bool) error {
	if fileMarks {
		return makeMark(fd, opaqueName)
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

// isOpaque reports whether the directory fd hides those below it.
func isOpaque(fd int, fileMarks bool) (bool, error) {
	if fileMarks {
		return exists(fd, opaqueName)
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

// isWhiteout reports whether the entry at path below the directory fd, whose status is
// st, is the mark of a removed name in overlay format. A device 0:0 of an image, which is
// only recorded, is none.
func isWhiteout(fd int, path string, st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		return false
	}
	var disk unix.Stat_t
	err := unix.Fstatat(fd, path, &disk, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && disk.Mode&unix.S_IFMT == unix.S_IFCHR
}

// exists reports whether the directory fd has the entry at path.
func exists(fd int, path string) (bool, error) {
	var st unix.Stat_t
	err := descent.Beneath(fd, path, func(dir int, rest string) error {
		return unix.Fstatat(dir, rest, &st, unix.AT_SYMLINK_NOFOLLOW)
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("stat %q: %w", brief(path), err)
	}
	return true, nil
}

// splitMarks sorts the names of a directory of a layer, and returns which of them
// are removed because a file says so. An entry of its own outdoes a mark.
func splitMarks(names []string, fileMarks bool) (sorted []string, removed map[string]bool) {
	if fileMarks {
		removed = map[string]bool{}
		names = slices.DeleteFunc(names, func(n string) bool {
			base, isMark := strings.CutPrefix(n, whiteoutPrefix)
			if isMark && n != opaqueName {
				removed[base] = true
			}
			return isMark
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
