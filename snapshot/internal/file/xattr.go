package file

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/bobbuild/bob/snapshot/internal/idmap"
	"github.com/bobbuild/bob/snapshot/owners"
)

const capabilityXattr = "security.capability"

// applied reports whether the extended attribute name of a tar is tried to be set.
func applied(name string) bool {
	return name != "security.selinux" && !owners.Own(name) &&
		!strings.HasPrefix(name, "user.overlay.") && !strings.HasPrefix(name, "trusted.overlay.")
}

// readXattrs returns the attributes of an open file, with the mode st_mode, for an
// archive.
func readXattrs(fd int, keeper owners.Keeper, mode uint32) (map[string]string, error) {
	values, err := keeper.Xattrs(fd, mode)
	return normal(values), err
}

// readXattrsOf is readXattrs of what can't be opened for reading: the last element of
// path isn't followed.
func readXattrsOf(path string, keeper owners.Keeper, mode uint32) (map[string]string, error) {
	values, err := keeper.XattrsOf(path, mode)
	return normal(values), err
}

// normal returns the attributes with the normal form of a capability.
func normal(attrs map[string]string) map[string]string {
	if v, ok := attrs[capabilityXattr]; ok {
		attrs[capabilityXattr] = string(normalCapability([]byte(v)))
	}
	return attrs
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

// namesUnmapped reports whether the attribute name is an access control list that names a
// user or a group which this user namespace doesn't have. Its value is a header of 4
// bytes and entries of a tag, permissions and an ID (linux/posix_acl_xattr.h).
func namesUnmapped(name string, value []byte) bool {
	const (
		header, entry = 4, 8
		user, group   = 0x02, 0x08
	)
	if !strings.HasPrefix(name, "system.posix_acl_") || len(value) < header || (len(value)-header)%entry != 0 {
		return false
	}
	for e := range slices.Chunk(value[header:], entry) {
		id := int(binary.LittleEndian.Uint32(e[4:]))
		switch binary.LittleEndian.Uint16(e) {
		case user:
			if !idmap.HasUser(id) {
				return true
			}
		case group:
			if !idmap.HasGroup(id) {
				return true
			}
		}
	}
	return false
}
