package filecopy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// attr is an extended attribute.
type attr struct {
	name  string
	value []byte
}

// carried reports whether the extended attribute belongs to the content of a
// file: file capabilities and what users attach. Labels of security modules and
// the records of overlayfs belong to the host.
func carried(name string) bool {
	if name == "security.capability" {
		return true
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") && !owners.Own(name)
}

// noAttrs reports whether err says that the file system has no extended
// attributes of that kind.
func noAttrs(err error) bool {
	return errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOSYS)
}

// readAttrs returns the carried attributes of the open file or directory fd, by name.
func readAttrs(fd int, keeper owners.Keeper) ([]attr, error) {
	return attrsBy(
		func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) },
		func(name string, buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) },
		func(name string) string { return keeper.Name(unix.S_IFREG, name) })
}

// attrsBy is readAttrs, given the calls to list attributes and to get one, and what
// each is called by others than the keeper of owners. A file system may refuse either
// of the calls, or list what it then refuses to give, as NFS does.
func attrsBy(listNames func([]byte) (int, error), get func(string, []byte) (int, error), called func(string) string) ([]attr, error) {
	list, err := grown(256, listNames)
	if err != nil {
		if noAttrs(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	var attrs []attr
	for raw := range bytes.SplitSeq(list, []byte{0}) {
		name := called(string(raw))
		if !carried(name) {
			continue
		}
		value, err := grown(128, func(buf []byte) (int, error) { return get(string(raw), buf) })
		if errors.Is(err, unix.ENODATA) || noAttrs(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read extended attribute %s: %w", name, err)
		}
		attrs = append(attrs, attr{name, value})
	}
	slices.SortFunc(attrs, func(a, b attr) int { return strings.Compare(a.name, b.name) })
	return attrs, nil
}

// grown calls read with buffers of growing size until the value fits: it may
// grow between two calls.
func grown(size int, read func([]byte) (int, error)) ([]byte, error) {
	for {
		buf := make([]byte, size)
		n := 0
		err := retry(func() (err error) {
			n, err = read(buf)
			return err
		})
		if err == nil {
			return buf[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size > 1<<20 {
			return nil, err
		}
		size *= 16
	}
}

// writeAttrs sets the attributes on the open file fd, where its file system has
// such.
func writeAttrs(fd int, attrs []attr, keeper owners.Keeper) error {
	for _, a := range attrs {
		err := keeper.Fsetxattr(fd, a.name, a.value)
		if err != nil && !noAttrs(err) {
			return fmt.Errorf("set extended attribute %s: %w", a.name, err)
		}
	}
	return nil
}
