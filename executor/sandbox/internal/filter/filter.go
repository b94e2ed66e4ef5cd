// Package filter compiles seccomp filters and loads them, see seccomp(2).
//
// libcontainer compiles the filter of each container in that container, by libseccomp,
// which takes longer than all else that starts a trivial command. This package compiles
// in microseconds, outside of the container and once for all that have the same filter.
package filter

import (
	"fmt"
	"unsafe"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A Filter is a compiled seccomp filter. It is immutable.
type Filter struct {
	program []unix.SockFilter
	flags   uintptr // SECCOMP_FILTER_FLAG_…
}

// maxProgram is the number of instructions that the kernel takes (BPF_MAXINSNS of
// linux/bpf_common.h).
const maxProgram = 4096

// Compile compiles a filter in the form of the OCI runtime specification. Calls of an
// architecture that it doesn't name, other than this machine's, kill the thread. As in
// libcontainer, calls that are newer than all that it names fail with ENOSYS, unless its
// default lets them through. Of several rules for a call, the first counts whose conditions
// are met.
func Compile(config *configs.Seccomp) (*Filter, error) {
	program, err := compile(config)
	if err != nil {
		return nil, fmt.Errorf("compile seccomp filter: %w", err)
	}
	if len(program) > maxProgram {
		return nil, fmt.Errorf("compile seccomp filter: %d instructions, the kernel takes %d", len(program), maxProgram)
	}
	f := &Filter{program: program}
	for _, rule := range config.Syscalls {
		if rule.Action == configs.Notify {
			f.flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
		}
	}
	for _, flag := range config.Flags {
		switch flag {
		case specs.LinuxSeccompFlagWaitKillableRecv:
			f.flags |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		case specs.LinuxSeccompFlagSpecAllow:
			f.flags |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagLog:
			f.flags |= unix.SECCOMP_FILTER_FLAG_LOG
		default:
			return nil, fmt.Errorf("compile seccomp filter: unknown flag %s", flag)
		}
	}
	return f, nil
}

// Load loads the filter into the calling thread, which must have no_new_privs or be
// privileged in its user namespace. It returns the descriptor by which the filter notifies
// of calls, which the caller closes, or -1 if it notifies of no calls.
func (f *Filter) Load() (listener int, err error) {
	program := unix.SockFprog{Len: uint16(len(f.program)), Filter: &f.program[0]}
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, f.flags, uintptr(unsafe.Pointer(&program))) //nolint:gosec // the call takes an address
	if errno != 0 {
		return -1, fmt.Errorf("load seccomp filter: %w", errno)
	}
	if f.flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
		return -1, nil
	}
	return int(fd), nil
}

// WaitsKillable reports whether the kernel knows the flag
// [specs.LinuxSeccompFlagWaitKillableRecv]: Linux 5.19 and later do.
func WaitsKillable() bool {
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	_, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, 0)
	return errno == unix.EFAULT // for its lack of a program
}
