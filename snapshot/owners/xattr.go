package owners

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// recordable reports whether an attribute that may not be set is recorded.
func recordable(name string) bool { return name == capability || strings.HasPrefix(name, trusted) }

// Name returns what the extended attribute called name on the disk, of a file with
// the mode st_mode, is to everyone else: another name if it is a recorded one, and
// "" if it is only part of the records.
func (k Keeper) Name(mode uint32, name string) string {
	if name == Attribute {
		return ""
	}
	recorded, ok := strings.CutPrefix(name, prefix)
	switch {
	case ok && k == Records && recordable(recorded):
		return recorded
	case ok, k == Records && name == capability && beside(mode):
		return ""
	}
	return name
}

// Own reports whether the extended attribute name is one of the records, which
// nobody else may bring along.
func Own(name string) bool { return name == Attribute || strings.HasPrefix(name, prefix) }

// Fsetxattr is fsetxattr(2) of any attribute but those of the records. With Records
// fd may be one of O_PATH.
func (k Keeper) Fsetxattr(fd int, name string, value []byte) error {
	if k != Records {
		return retry(func() error { return unix.Fsetxattr(fd, name, value, 0) })
	}
	return opened(fd).set(name, value)
}

// Setxattrat is Fsetxattr of the file called name in dir, itself if it is a link.
func (k Keeper) Setxattrat(dir int, name, attribute string, value []byte) error {
	f := entry(dir, name)
	if k != Records {
		return f.setxattr(attribute, value)
	}
	return f.set(attribute, value)
}

// set sets an attribute or, if the kernel doesn't let this process, records it.
func (f file) set(name string, value []byte) error {
	var st unix.Stat_t
	if err := f.stat(&st); err != nil {
		return err
	}
	if name == capability && beside(st.Mode) {
		return unix.ENOTSUP
	}
	err := f.setxattr(name, value)
	if !recordable(name) || !errors.Is(err, unix.EPERM) {
		return err
	}
	return f.setxattr(prefix+name, value)
}

// beside reports whether the owner of a file of this mode is recorded otherwise than
// by an Attribute.
func beside(mode uint32) bool {
	switch mode & unix.S_IFMT {
	case unix.S_IFLNK, unix.S_IFIFO, unix.S_IFSOCK:
		return true
	}
	return false
}
