package owners

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Links, fifos and sockets can't carry user attributes. Their mode is that on the
// disk.

// capabilityMagic is that of revision 2 in struct vfs_cap_data, capabilitySize the
// size of the struct.
const (
	capabilityMagic = 0x02000000
	capabilitySize  = 20
)

const (
	// firstSecond is the time of last access that stands for user 0, in the year
	// 2242; that of the last user is in 2378. ext4, XFS with bigtime, Btrfs and
	// tmpfs hold such times, and with relatime the kernel leaves a time in the
	// future alone.
	firstSecond = 1 << 33
	lastSecond  = firstSecond + 1<<32 - 1
	// groupLimit is how many groups the nanoseconds have room for.
	groupLimit = 1_000_000_000
)

func (f file) overrideBeside(st *unix.Stat_t) error {
	var b [capabilitySize]byte
	n, err := f.getxattr(capability, b[:])
	switch {
	case err == nil && n == capabilitySize:
		// struct vfs_cap_data: magic, then the lower halves of both sets
		st.Uid, st.Gid = binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
		return nil
	case err != nil && !none(err) && !errors.Is(err, unix.ERANGE) && !errors.Is(err, unix.EOVERFLOW):
		return err
	}
	if st.Atim.Sec >= firstSecond && st.Atim.Sec <= lastSecond {
		st.Uid, st.Gid = uint32(st.Atim.Sec-firstSecond), uint32(st.Atim.Nsec)
	}
	return nil
}

// changeBeside records the owner of st for the file that has the status disk, was
// with what is recorded.
func (f file) changeBeside(disk, was, st *unix.Stat_t) error {
	if disk.Mode&unix.S_IFMT == unix.S_IFCHR || disk.Mode&unix.S_IFMT == unix.S_IFBLK {
		return unix.EPERM // a real device
	}
	if mode := st.Mode & permissions; mode != disk.Mode&permissions && disk.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := f.setMode(mode); err != nil {
			return err
		}
	}
	if st.Uid == was.Uid && st.Gid == was.Gid {
		return nil
	}
	v := binary.LittleEndian.AppendUint32(nil, capabilityMagic)
	v = binary.LittleEndian.AppendUint32(v, st.Uid)
	v = binary.LittleEndian.AppendUint32(v, st.Gid)
	err := f.setxattr(capability, append(v, make([]byte, capabilitySize-len(v))...))
	if err == nil || !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return f.setAccessTime(st.Uid, st.Gid)
}

// setAccessTime records the owner as the time of last access.
func (f file) setAccessTime(uid, gid uint32) error {
	if gid >= groupLimit {
		return fmt.Errorf("group %d of a link, fifo or socket can't be recorded without a user namespace: %w", gid, unix.EOVERFLOW)
	}
	want := unix.Timespec{Sec: firstSecond + int64(uid), Nsec: int64(gid)}
	times := []unix.Timespec{want, {Nsec: unix.UTIME_OMIT}}
	if err := retry(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, f.path, times, f.flags()) }); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := f.stat(&st); err != nil {
		return err
	}
	if st.Atim != want {
		return fmt.Errorf("the file system can't hold the time %d.%09d, which would record the owner: %w", want.Sec, want.Nsec, unix.ENOTSUP)
	}
	return nil
}
