package emulate

import (
	"slices"

	"golang.org/x/sys/unix"
)

// deviceCalls returns the calls that an emulation of devices answers.
func deviceCalls() []call {
	return slices.Concat(olderDeviceCalls(), newerDeviceCalls(), narrowDeviceCalls())
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
