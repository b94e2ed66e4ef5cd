package owners

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Carried reports whether the extended attribute name goes where the content of its file
// goes, into another directory or an archive: file capabilities and what users attach.
// What describes this machine rather than the file stays behind: labels of security
// modules, access control lists, which a directory may have handed down, and the
// records of overlayfs and of keepers.
func Carried(name string) bool {
	return name == capability ||
		strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") && !Own(name)
}

// Xattrs returns the values of the extended attributes that are carried, by name, of the
// open file fd with the mode st_mode. On a file system without any there are none.
func (k Keeper) Xattrs(fd int, mode uint32) (map[string]string, error) {
	return k.xattrs(mode,
		func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) },
		func(name string, buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
}

// XattrsOf is Xattrs of what can't be opened for reading. The last element of path isn't
// followed.
func (k Keeper) XattrsOf(path string, mode uint32) (map[string]string, error) {
	return k.xattrs(mode,
		func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) },
		func(name string, buf []byte) (int, error) { return unix.Lgetxattr(path, name, buf) })
}

// xattrs is Xattrs, given the calls to list attributes and to get one. A file system may
// refuse either of them, or list what it then refuses to give, as NFS does.
func (k Keeper) xattrs(mode uint32, list func([]byte) (int, error), get func(string, []byte) (int, error)) (map[string]string, error) {
	names, err := growing(256, list)
	if NoXattrs(err) || errors.Is(err, unix.EPERM) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	var values map[string]string
	for raw := range bytes.SplitSeq(names, []byte{0}) {
		name := k.Name(mode, string(raw))
		if !Carried(name) {
			continue
		}
		value, err := growing(128, func(buf []byte) (int, error) { return get(string(raw), buf) })
		if errors.Is(err, unix.ENODATA) || NoXattrs(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		if values == nil {
			values = map[string]string{}
		}
		values[name] = string(value)
	}
	return values, nil
}

// NoXattrs reports whether err says that the file system has no extended attributes of
// that kind.
func NoXattrs(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS)
}

// mostXattr is how many bytes the kernel lets an attribute, or the list of them, have.
const mostXattr = 64 << 10

// growing calls fill with buffers of growing size until what it gives fits: that may
// grow between two calls.
func growing(size int, fill func([]byte) (int, error)) ([]byte, error) {
	for ; ; size *= 4 {
		buf, n := make([]byte, size), 0
		err := retry(func() (err error) {
			n, err = fill(buf)
			return err
		})
		if err == nil {
			return buf[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size > mostXattr {
			return nil, err
		}
	}
}
