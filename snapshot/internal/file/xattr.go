package file

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

const capabilityXattr = "security.capability"

// archived reports whether the extended attribute name goes into a tar. What
// describes this machine rather than the file stays behind: labels of security
// modules, ACLs that the directory of the store may have handed down, and the
// overlay's own attributes.
func archived(name string) bool {
	return name == capabilityXattr ||
		strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") && !owners.Own(name)
}

// applied reports whether the extended attribute name of a tar is tried to be set.
func applied(name string) bool {
	return name != "security.selinux" && !owners.Own(name) &&
		!strings.HasPrefix(name, "user.overlay.") && !strings.HasPrefix(name, "trusted.overlay.")
}

// readXattrs returns the attributes for an archive, given the calls to list and
// to get them, and what each is called by others than the keeper of owners. A file
// system without any is one without attributes.
func readXattrs(list func([]byte) (int, error), get func(string, []byte) (int, error), called func(string) string) (map[string]string, error) {
	names, err := growing(make([]byte, 0, 256), list)
	if err != nil {
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
			return nil, nil
		}
		return nil, fmt.Errorf("list extended attributes: %w", err)
	}
	var attrs map[string]string
	for name := range bytes.SplitSeq(names, []byte{0}) {
		n := called(string(name))
		if n == "" || !archived(n) {
			continue
		}
		v, err := growing(make([]byte, 0, 128), func(b []byte) (int, error) { return get(string(name), b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("get extended attribute %s: %w", n, err)
		}
		if n == capabilityXattr {
			v = normalCapability(v)
		}
		if attrs == nil {
			attrs = map[string]string{}
		}
		attrs[n] = string(v)
	}
	return attrs, nil
}

// growing calls fill with b's capacity, and with more while that is too short.
func growing(b []byte, fill func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := fill(b[:cap(b)])
		if errors.Is(err, unix.ERANGE) {
			b = make([]byte, 0, 4*cap(b))
			continue
		}
		if err != nil {
			return nil, err
		}
		return b[:n], nil
	}
}

// readXattrsFd is readXattrs of an open file with the mode st_mode.
func readXattrsFd(fd int, keeper owners.Keeper, mode uint32) (map[string]string, error) {
	return readXattrs(
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(name string, b []byte) (int, error) { return unix.Fgetxattr(fd, name, b) },
		func(name string) string { return keeper.Name(mode, name) })
}

// readXattrsPath is for what can't be opened for reading: the last element of
// path isn't followed.
func readXattrsPath(path string, keeper owners.Keeper, mode uint32) (map[string]string, error) {
	return readXattrs(
		func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(name string, b []byte) (int, error) { return unix.Lgetxattr(path, name, b) },
		func(name string) string { return keeper.Name(mode, name) })
}

// normalCapability brings a file capability into the form of revision 2, which
// holds for the root user of whatever namespace the file is used in. Revision 3
// adds the ID that root has outside of one (capabilities(7)).
func normalCapability(v []byte) []byte {
	const (
		revisionMask = 0xff000000
		revision2    = 0x02000000
		revision3    = 0x03000000
		size2, size3 = 20, 24
	)
	if len(v) != size3 {
		return v
	}
	magic := binary.LittleEndian.Uint32(v)
	if magic&revisionMask != revision3 {
		return v
	}
	v2 := bytes.Clone(v[:size2])
	binary.LittleEndian.PutUint32(v2, magic&^revisionMask|revision2)
	return v2
}

// writeXattrs sets the extended attributes of a by set. It leaves out what the file
// system or the user namespace doesn't take, except for capabilities, without which a
// program fails, and for what is malformed if a is Strict.
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
		if name != capabilityXattr && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) && !a.Strict) {
			continue
		}
		return fmt.Errorf("set extended attribute %s: %w", name, err)
	}
	return nil
}
