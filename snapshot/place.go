package snapshot

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/snapshot/internal/idmap"
	"golang.org/x/sys/unix"
)

// otherPlace tells what to do about a place that can't be used.
const otherPlace = "choose another directory by --cache-dir, or BOB_CACHE_DIR"

// CheckPlace refuses dir as the place of a store if another user may have prepared it,
// who could then change what builds find there: something on the way to it belongs to
// another user, in a directory like /tmp, where anyone can make it. It needs to be
// called before the process enters a user namespace, in which other users can't be told
// apart. That dir isn't there is no error.
func CheckPlace(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		var above, itself, target unix.Stat_t
		err := unix.Stat(filepath.Dir(dir), &above)
		if err == nil {
			err = unix.Lstat(dir, &itself)
		}
		if err == nil {
			err = unix.Stat(dir, &target)
		}
		if err != nil || above.Mode&0o002 == 0 {
			continue // what is wrong with it is told by who uses it
		}
		for _, uid := range []uint32{itself.Uid, target.Uid} {
			if isOther(uid) {
				return fmt.Errorf("%s belongs to user %d, who may have prepared it, as anyone may make files in %s: %s", dir, uid, filepath.Dir(dir), otherPlace)
			}
		}
	}
	return nil
}

// isOther reports whether uid is neither the process's user nor root. In a user
// namespace all users without an ID there have the same one, root among them, also if it
// is somebody's there.
func isOther(uid uint32) bool {
	if uid == 0 || uid == uint32(os.Geteuid()) {
		return false
	}
	const overflow, last = 65534, 1<<32 - 2
	return uid != overflow || idmap.HasUser(last) // all have one
}

// makeDirs makes the directories that aren't there. One that is there must be the
// user's own, and no link: it decides where the store reads and writes.
func makeDirs(dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(d, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: d, Err: err}
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return fmt.Errorf("%s is a link, which a store has none of: %s", d, otherPlace)
		}
		if st.Uid != uint32(os.Geteuid()) {
			return fmt.Errorf("%s belongs to user %d, not to %d: it was made by another one: %s", d, st.Uid, os.Geteuid(), otherPlace)
		}
	}
	return nil
}
