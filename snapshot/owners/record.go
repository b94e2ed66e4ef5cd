package owners

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Attribute is the extended attribute that holds a record. It belongs in no archive
// and no layer.
const Attribute = "user.containers.override_stat"

// DeviceAttribute is the extended attribute that holds the record of a device where
// owners are those on the disk. fuse-overlayfs, to which the other belongs, lets nobody set
// that.
const DeviceAttribute = prefix + "device"

// maxRecord is longer than any record that is right.
const maxRecord = 128

// record is what an Attribute says.
type record struct {
	uid, gid uint32
	mode     uint32 // with the type, as st_mode has it
	rdev     uint64
}

var errRecord = errors.New("is not uid:gid:mode:type")

// record returns what the attribute of f says, nil if there is none.
func (f file) record(attribute string) (*record, error) {
	var b [maxRecord]byte
	n, err := f.getxattr(attribute, b[:])
	if none(err) {
		return nil, nil
	}
	if errors.Is(err, unix.ERANGE) {
		err = errRecord
	}
	if err == nil {
		var r *record
		if r, err = parse(string(b[:n])); err == nil {
			return r, nil
		}
	}
	return nil, fmt.Errorf("extended attribute %s: %w", attribute, err)
}

// parse reads the value of an Attribute. Types other than those of devices are
// known from the file, and so are not looked at.
func parse(s string) (*record, error) {
	fields := strings.Split(s, ":")
	if len(fields) != 3 && len(fields) != 4 {
		return nil, fmt.Errorf("%q %w", s, errRecord)
	}
	r := &record{}
	for i, to := range []*uint32{&r.uid, &r.gid, &r.mode} {
		base := 10
		if i == 2 {
			base = 8
		}
		n, err := strconv.ParseUint(fields[i], base, 32)
		if err != nil {
			return nil, fmt.Errorf("%q %w", s, errRecord)
		}
		*to = uint32(n)
	}
	r.mode &= permissions
	if len(fields) == 4 {
		if kind, numbers, ok := strings.Cut(fields[3], "-"); ok {
			if err := r.device(kind, numbers); err != nil {
				return nil, fmt.Errorf("%q %w", s, errRecord)
			}
		}
	}
	return r, nil
}

// device reads "MAJOR-MINOR" of a device of the kind "char" or "block".
func (r *record) device(kind, numbers string) error {
	first, second, _ := strings.Cut(numbers, "-")
	major, err := strconv.ParseUint(first, 10, 32)
	if err != nil {
		return err
	}
	minor, err := strconv.ParseUint(second, 10, 32)
	if err != nil {
		return err
	}
	r.rdev = unix.Mkdev(uint32(major), uint32(minor))
	switch kind {
	case "char":
		r.mode |= unix.S_IFCHR
	case "block":
		r.mode |= unix.S_IFBLK
	default:
		return errRecord
	}
	return nil
}

func (r record) String() string {
	kind := "file"
	switch r.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		kind = "dir"
	case unix.S_IFCHR:
		kind = fmt.Sprintf("char-%d-%d", unix.Major(r.rdev), unix.Minor(r.rdev))
	case unix.S_IFBLK:
		kind = fmt.Sprintf("block-%d-%d", unix.Major(r.rdev), unix.Minor(r.rdev))
	}
	return fmt.Sprintf("%d:%d:%04o:%s", r.uid, r.gid, r.mode&permissions, kind)
}

// needed reports whether the disk alone would say something else than r.
func (r record) needed() bool {
	return r.uid != 0 || r.gid != 0 || onDisk(r.mode) != r.mode&permissions || !carries(r.mode)
}

// become makes st the status of the device r.
func (r record) become(st *unix.Stat_t) {
	st.Rdev, st.Size, st.Blocks = r.rdev, 0, 0
	st.Mode = st.Mode&permissions | r.mode&unix.S_IFMT
}

// override puts r into st, which is that of a regular file or a directory on the
// disk.
func (r record) override(st *unix.Stat_t) {
	st.Uid, st.Gid = r.uid, r.gid
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFREG && r.mode&unix.S_IFMT != 0 {
		r.become(st)
	}
	if onDisk(kind|r.mode&permissions) == st.Mode&permissions { // else changed since
		st.Mode = st.Mode&unix.S_IFMT | r.mode&permissions
	}
}
