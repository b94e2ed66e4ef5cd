package emulate

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"
)

// The calls of i386 programs, by the kernel's arch/x86/entry/syscalls/syscall_32.tbl. Those
// of older programs have IDs of 16 bits (include/linux/highuid.h), of which the names lack
// the number at their end.

// idCalls32 are calls that are answered as those of bob's own architecture.
func idCalls32() []call {
	uid := func(id *identity) *[4]uint32 { return &id.uid }
	gid := func(id *identity) *[4]uint32 { return &id.gid }
	return []call{
		{name: "setuid32", number: 213, handle: setuid},
		{name: "setgid32", number: 214, handle: setgid},
		{name: "setreuid32", number: 203, handle: setreuid},
		{name: "setregid32", number: 204, handle: setregid},
		{name: "setresuid32", number: 208, handle: setresuid},
		{name: "setresgid32", number: 210, handle: setresgid},
		{name: "setfsuid32", number: 215, handle: setfsuid},
		{name: "setfsgid32", number: 216, handle: setfsgid},
		{name: "setgroups32", number: 206, handle: setgroups},
		{name: "getgroups32", number: 205, handle: getgroups},
		{name: "getuid32", number: 199, handle: getOne(func(id *identity) uint32 { return id.uid[realID] })},
		{name: "geteuid32", number: 201, handle: getOne(func(id *identity) uint32 { return id.uid[effectiveID] })},
		{name: "getgid32", number: 200, handle: getOne(func(id *identity) uint32 { return id.gid[realID] })},
		{name: "getegid32", number: 202, handle: getOne(func(id *identity) uint32 { return id.gid[effectiveID] })},
		{name: "getresuid32", number: 209, handle: getThree(uid)},
		{name: "getresgid32", number: 211, handle: getThree(gid)},
		{name: "execve", number: 11, handle: execve},
		{name: "execveat", number: 358, handle: execveat},
		{name: "prlimit64", number: 340, handle: prlimit},
		{name: "setrlimit", number: 75, handle: setrlimit},
		{name: "getrlimit", number: 76, handle: unlimited32(math.MaxInt32)},
		{name: "ugetrlimit", number: 191, handle: unlimited32(math.MaxUint32), only: &condition{equal: limit}},
		{name: "prctl", number: 172, handle: keepCapabilities},
	}
}

// idCalls16 are calls with IDs of 16 bits.
func idCalls16() []call {
	uid := func(id *identity) *[4]uint32 { return &id.uid }
	gid := func(id *identity) *[4]uint32 { return &id.gid }
	return []call{
		{name: "setuid", number: 23, handle: wide(setuid, 0)},
		{name: "setgid", number: 46, handle: wide(setgid, 0)},
		{name: "setreuid", number: 70, handle: wide(setreuid, 0, 1)},
		{name: "setregid", number: 71, handle: wide(setregid, 0, 1)},
		{name: "setresuid", number: 164, handle: wide(setresuid, 0, 1, 2)},
		{name: "setresgid", number: 170, handle: wide(setresgid, 0, 1, 2)},
		{name: "setfsuid", number: 138, handle: wide(setfsuid, 0)},
		{name: "setfsgid", number: 139, handle: wide(setfsgid, 0)},
		{name: "setgroups", number: 81, handle: setgroups16},
		{name: "getgroups", number: 80, handle: getgroups16},
		{name: "getuid", number: 24, handle: getOne(func(id *identity) uint32 { return narrowed(id.uid[realID]) })},
		{name: "geteuid", number: 49, handle: getOne(func(id *identity) uint32 { return narrowed(id.uid[effectiveID]) })},
		{name: "getgid", number: 47, handle: getOne(func(id *identity) uint32 { return narrowed(id.gid[realID]) })},
		{name: "getegid", number: 50, handle: getOne(func(id *identity) uint32 { return narrowed(id.gid[effectiveID]) })},
		{name: "getresuid", number: 165, handle: getThree16(uid)},
		{name: "getresgid", number: 171, handle: getThree16(gid)},
	}
}

// fileCalls32 are calls on files, but those that name devices or attributes.
func fileCalls32() []call {
	chown := func(flags uint64) handler {
		return func(w *worker, r *request) answer { return w.chown(cwd, r.args[0], r.args[1], r.args[2], flags) }
	}
	return []call{
		{name: "chown32", number: 212, handle: chown(0)},
		{name: "lchown32", number: 198, handle: chown(unix.AT_SYMLINK_NOFOLLOW)},
		{name: "fchown32", number: 207, handle: fchown},
		{name: "chown", number: 182, handle: wide(chown(0), 1, 2)},
		{name: "lchown", number: 16, handle: wide(chown(unix.AT_SYMLINK_NOFOLLOW), 1, 2)},
		{name: "fchown", number: 95, handle: wide(fchown, 1, 2)},
		{name: "fchownat", number: 298, handle: fchownat},
		{name: "fchmod", number: 94, handle: fchmod},
		{name: "fchmodat", number: 306, handle: fchmodat},
		{name: "fchmodat2", number: 452, handle: fchmodat2},
		{name: "openat", number: 295, handle: openat},
		{name: "mkdirat", number: 296, handle: mkdirat},
		{name: "symlinkat", number: 304, handle: symlinkat},
		{name: "statx", number: 383, handle: statx},
		{name: "fstatat64", number: 300, handle: laidOut(stat64, newfstatat)},
		{name: "fstat64", number: 197, handle: laidOut(stat64, fstat)},
		{name: "stat64", number: 195, handle: laidOut(stat64, statPath(0))},
		{name: "lstat64", number: 196, handle: laidOut(stat64, statPath(unix.AT_SYMLINK_NOFOLLOW))},
		{name: "fstat", number: 108, handle: laidOut(stat32, fstat)},
		{name: "stat", number: 106, handle: laidOut(stat32, statPath(0))},
		{name: "lstat", number: 107, handle: laidOut(stat32, statPath(unix.AT_SYMLINK_NOFOLLOW))},
	}
}

// numbers32 are the numbers of the older calls on files, whose arguments are the same, and of
// those that name devices or attributes.
var numbers32 = map[string]int32{
	"chmod": 15, "open": 5, "creat": 8, "mkdir": 39, "symlink": 83,
	"mknod": 14, "mknodat": 297, "setxattr": 226, "lsetxattr": 227, "fsetxattr": 228,
}

// narrowCalls returns the calls of i386 programs that an emulation of owners answers.
func narrowCalls() []call {
	attributes := []call{
		{name: "mknodat", handle: mknodat},
		{name: "setxattr", handle: setxattr},
		{name: "lsetxattr", handle: lsetxattr},
		{name: "fsetxattr", handle: fsetxattr},
	}
	var all []call
	for _, calls := range [][]call{idCalls32(), idCalls16(), fileCalls32()} {
		for _, c := range calls {
			c.arch = unix.AUDIT_ARCH_I386
			all = append(all, c)
		}
	}
	return append(all, renumbered(architectureCalls(), attributes)...)
}

// narrowDeviceCalls returns those that an emulation of devices answers.
func narrowDeviceCalls() []call { return renumbered(olderDeviceCalls(), newerDeviceCalls()) }

// renumbered returns calls that i386 programs make by numbers32.
func renumbered(lists ...[]call) (all []call) {
	for _, calls := range lists {
		for _, c := range calls {
			if number, found := numbers32[c.name]; found {
				c.arch, c.number = unix.AUDIT_ARCH_I386, number
				all = append(all, c)
			}
		}
	}
	return all
}

// wide returns a handler of a call some of whose arguments are IDs of 16 bits.
func wide(handle handler, ids ...int) handler {
	return func(w *worker, r *request) answer {
		widened := *r
		for _, i := range ids {
			if widened.args[i] &= math.MaxUint16; widened.args[i] == math.MaxUint16 {
				widened.args[i] = uint64(unset)
			}
		}
		return handle(w, &widened)
	}
}

// overflowID stands for an ID that doesn't fit in 16 bits.
const overflowID = 65534

// narrowed returns what a program with IDs of 16 bits is told.
func narrowed(id uint32) uint32 {
	if id > math.MaxUint16 {
		return overflowID
	}
	return id
}

func setgroups16(w *worker, r *request) answer {
	n := uint32(r.args[0])
	if n > maxGroups {
		return answer{errno: unix.EINVAL}
	}
	b := make([]byte, 2*n)
	if n > 0 {
		if _, err := w.read(r.args[1], b); err != nil {
			return answer{errno: unix.EFAULT}
		}
	}
	groups := make([]uint32, 0, n)
	for i := range n {
		groups = append(groups, uint32(binary.LittleEndian.Uint16(b[2*i:])))
	}
	return w.setGroups(groups)
}

func getgroups16(w *worker, r *request) answer {
	return w.getGroups(r, func(groups []byte) []byte {
		b := make([]byte, 0, len(groups)/2)
		for i := 0; i < len(groups); i += 4 {
			b = binary.LittleEndian.AppendUint16(b, uint16(narrowed(binary.LittleEndian.Uint32(groups[i:]))))
		}
		return b
	})
}

// getThree16 is getThree for IDs of 16 bits.
func getThree16(which func(*identity) *[4]uint32) handler {
	return func(w *worker, r *request) answer {
		id, err := w.identity()
		if err != nil {
			return passed
		}
		for i, n := range which(&id)[realID:filesID] {
			if err := w.write(r.args[i], binary.LittleEndian.AppendUint16(nil, uint16(narrowed(n)))); err != nil {
				return answer{errno: unix.EFAULT}
			}
		}
		return answer{}
	}
}

// unlimited32 tells of a limit of 32 bits that it is infinity.
func unlimited32(infinity uint32) handler {
	return func(w *worker, r *request) answer {
		return answerOf(w.write(r.args[1], bytesOf(&[2]uint32{infinity, infinity})))
	}
}

// statPath is stat(2), with AT_ flags.
func statPath(flags uint64) handler {
	return func(w *worker, r *request) answer { return w.stat(cwd, r.args[0], r.args[1], flags) }
}

// laidOut returns a handler of a call that tells the status of a file in that layout.
func laidOut(layout statLayout, handle handler) handler {
	return func(w *worker, r *request) answer {
		w.layout = layout
		return handle(w, r)
	}
}

// stat64 is struct stat64 of arch/x86/include/uapi/asm/stat.h.
func stat64(st *unix.Stat_t) ([]byte, unix.Errno) {
	b := make([]byte, 0, 96)
	order := binary.LittleEndian
	b = order.AppendUint64(b, st.Dev)
	b = order.AppendUint32(b, 0)
	b = order.AppendUint32(b, uint32(st.Ino))
	b = order.AppendUint32(b, st.Mode)
	b = order.AppendUint32(b, uint32(st.Nlink))
	b = order.AppendUint32(b, st.Uid)
	b = order.AppendUint32(b, st.Gid)
	b = order.AppendUint64(b, st.Rdev)
	b = order.AppendUint32(b, 0)
	b = order.AppendUint64(b, uint64(st.Size))
	b = order.AppendUint32(b, uint32(st.Blksize))
	b = order.AppendUint64(b, uint64(st.Blocks))
	b = appendTimes(b, st)
	return order.AppendUint64(b, st.Ino), 0
}

// stat32 is struct stat there.
func stat32(st *unix.Stat_t) ([]byte, unix.Errno) {
	if st.Size > math.MaxInt32 || st.Ino > math.MaxUint32 || st.Nlink > math.MaxUint16 || st.Dev > math.MaxUint32 || st.Rdev > math.MaxUint32 {
		return nil, unix.EOVERFLOW
	}
	b := make([]byte, 0, 64)
	order := binary.LittleEndian
	b = order.AppendUint32(b, uint32(st.Dev))
	b = order.AppendUint32(b, uint32(st.Ino))
	b = order.AppendUint16(b, uint16(st.Mode))
	b = order.AppendUint16(b, uint16(st.Nlink))
	b = order.AppendUint16(b, uint16(narrowed(st.Uid)))
	b = order.AppendUint16(b, uint16(narrowed(st.Gid)))
	b = order.AppendUint32(b, uint32(st.Rdev))
	b = order.AppendUint32(b, uint32(st.Size))
	b = order.AppendUint32(b, uint32(st.Blksize))
	b = order.AppendUint32(b, uint32(st.Blocks))
	b = appendTimes(b, st)
	return order.AppendUint64(b, 0), 0
}

// appendTimes appends the times of both structures.
func appendTimes(b []byte, st *unix.Stat_t) []byte {
	for _, t := range []unix.Timespec{st.Atim, st.Mtim, st.Ctim} {
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Sec))
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Nsec))
	}
	return b
}
