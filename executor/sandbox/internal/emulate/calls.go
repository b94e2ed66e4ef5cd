package emulate

import (
	"slices"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// A handler answers one call.
type handler func(*worker, *request) answer

// call is a system call that the emulation answers.
type call struct {
	name   string
	number int32
	handle handler
	// arch is the architecture of the programs that make the call, 0 for bob's own.
	arch uint32
	// only, if set, says for which values of an argument: the others are the
	// kernel's.
	only *condition
}

// condition is that one of the bits of an argument is set or, if equal is set, that
// the argument has that value.
type condition struct {
	argument uint
	bit      uint64
	equal    uint64
}

// rules returns what the filter says of the call.
func (c call) rules() []*configs.Syscall {
	notify := &configs.Syscall{Name: c.name, Action: configs.Notify}
	if c.only == nil {
		return []*configs.Syscall{notify}
	}
	allow := &configs.Syscall{Name: c.name, Action: configs.Allow}
	index := c.only.argument
	if c.only.bit != 0 {
		notify.Args = []*configs.Arg{{Index: index, Value: c.only.bit, ValueTwo: c.only.bit, Op: configs.MaskEqualTo}}
		allow.Args = []*configs.Arg{{Index: index, Value: c.only.bit, ValueTwo: 0, Op: configs.MaskEqualTo}}
	} else {
		notify.Args = []*configs.Arg{{Index: index, Value: c.only.equal, Op: configs.EqualTo}}
		allow.Args = []*configs.Arg{{Index: index, Value: c.only.equal, Op: configs.NotEqualTo}}
	}
	return []*configs.Syscall{notify, allow}
}

// deviceCalls returns the calls that an emulation of devices answers.
func deviceCalls() []call {
	return slices.Concat(olderDeviceCalls(), newerDeviceCalls(), narrowDeviceCalls())
}

// newerDeviceCalls returns those that every architecture has.
func newerDeviceCalls() []call {
	return []call{
		{name: "mknodat", number: unix.SYS_MKNODAT, handle: func(w *worker, r *request) answer {
			return w.mknodDevice(int32(r.args[0]), r.args[1], r.args[2], r.args[3])
		}},
		{name: "setxattr", number: unix.SYS_SETXATTR, handle: func(w *worker, r *request) answer {
			return w.guardRecords(r, func() (int, error) { return w.openAt(unix.AT_FDCWD, r.args[0], 0) })
		}},
		{name: "lsetxattr", number: unix.SYS_LSETXATTR, handle: func(w *worker, r *request) answer {
			return w.guardRecords(r, func() (int, error) { return w.openAt(unix.AT_FDCWD, r.args[0], unix.AT_SYMLINK_NOFOLLOW) })
		}},
		{name: "fsetxattr", number: unix.SYS_FSETXATTR, handle: func(w *worker, r *request) answer {
			return w.guardRecords(r, func() (int, error) { return w.openDescriptor(int32(r.args[0])) })
		}},
	}
}

// emulatedCalls returns all calls that an emulation of owners answers.
func emulatedCalls() []call {
	creates := func(argument uint) *condition { return &condition{argument: argument, bit: unix.O_CREAT} }
	uid := func(id *identity) *[4]uint32 { return &id.uid }
	gid := func(id *identity) *[4]uint32 { return &id.gid }
	own := append(architectureCalls(),
		call{name: "setuid", number: unix.SYS_SETUID, handle: setuid},
		call{name: "setgid", number: unix.SYS_SETGID, handle: setgid},
		call{name: "setreuid", number: unix.SYS_SETREUID, handle: setreuid},
		call{name: "setregid", number: unix.SYS_SETREGID, handle: setregid},
		call{name: "setresuid", number: unix.SYS_SETRESUID, handle: setresuid},
		call{name: "setresgid", number: unix.SYS_SETRESGID, handle: setresgid},
		call{name: "setfsuid", number: unix.SYS_SETFSUID, handle: setfsuid},
		call{name: "setfsgid", number: unix.SYS_SETFSGID, handle: setfsgid},
		call{name: "setgroups", number: unix.SYS_SETGROUPS, handle: setgroups},
		call{name: "getgroups", number: unix.SYS_GETGROUPS, handle: getgroups},
		call{name: "getuid", number: unix.SYS_GETUID, handle: getOne(func(id *identity) uint32 { return id.uid[realID] })},
		call{name: "geteuid", number: unix.SYS_GETEUID, handle: getOne(func(id *identity) uint32 { return id.uid[effectiveID] })},
		call{name: "getgid", number: unix.SYS_GETGID, handle: getOne(func(id *identity) uint32 { return id.gid[realID] })},
		call{name: "getegid", number: unix.SYS_GETEGID, handle: getOne(func(id *identity) uint32 { return id.gid[effectiveID] })},
		call{name: "getresuid", number: unix.SYS_GETRESUID, handle: getThree(uid)},
		call{name: "getresgid", number: unix.SYS_GETRESGID, handle: getThree(gid)},
		call{name: "execve", number: unix.SYS_EXECVE, handle: execve},
		call{name: "execveat", number: unix.SYS_EXECVEAT, handle: execveat},
		call{name: "prlimit64", number: unix.SYS_PRLIMIT64, handle: prlimit, only: &condition{argument: 1, equal: limit}},
		call{name: "setrlimit", number: unix.SYS_SETRLIMIT, handle: setrlimit, only: &condition{equal: limit}},
		call{name: "getrlimit", number: unix.SYS_GETRLIMIT, handle: getrlimit, only: &condition{equal: limit}},
		call{name: "prctl", number: unix.SYS_PRCTL, handle: keepCapabilities, only: &condition{equal: unix.PR_SET_KEEPCAPS}},

		call{name: "fchown", number: unix.SYS_FCHOWN, handle: fchown},
		call{name: "fchownat", number: unix.SYS_FCHOWNAT, handle: fchownat},
		call{name: "fchmod", number: unix.SYS_FCHMOD, handle: fchmod},
		call{name: "fchmodat", number: unix.SYS_FCHMODAT, handle: fchmodat},
		call{name: "fchmodat2", number: unix.SYS_FCHMODAT2, handle: fchmodat2},
		call{name: "openat", number: unix.SYS_OPENAT, handle: openat, only: creates(2)},
		call{name: "mkdirat", number: unix.SYS_MKDIRAT, handle: mkdirat},
		call{name: "mknodat", number: unix.SYS_MKNODAT, handle: mknodat},
		call{name: "symlinkat", number: unix.SYS_SYMLINKAT, handle: symlinkat},
		call{name: "setxattr", number: unix.SYS_SETXATTR, handle: setxattr},
		call{name: "lsetxattr", number: unix.SYS_LSETXATTR, handle: lsetxattr},
		call{name: "fsetxattr", number: unix.SYS_FSETXATTR, handle: fsetxattr},
		call{name: "newfstatat", number: sysNewfstatat, handle: newfstatat},
		call{name: "fstat", number: unix.SYS_FSTAT, handle: fstat},
		call{name: "statx", number: unix.SYS_STATX, handle: statx},
	)
	return append(own, narrowCalls()...)
}
