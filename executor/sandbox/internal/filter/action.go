package filter

import (
	"cmp"
	"fmt"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// killThread is the result that kills the thread.
const killThread = unix.SECCOMP_RET_KILL_THREAD

// result returns what a program returns for an action: one of SECCOMP_RET_…, with data in
// its lower half. errno is what a call fails with, EPERM if it is nil.
func result(action configs.Action, errno *uint) (uint32, error) {
	switch action {
	case configs.Allow:
		return unix.SECCOMP_RET_ALLOW, nil
	case configs.Log:
		return unix.SECCOMP_RET_LOG, nil
	case configs.Notify:
		return unix.SECCOMP_RET_USER_NOTIF, nil
	case configs.Kill, configs.KillThread:
		return killThread, nil
	case configs.KillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case configs.Errno:
		number := uint(unix.EPERM)
		return failing(unix.Errno(*cmp.Or(errno, &number))), nil
	default:
		return 0, fmt.Errorf("action %d is not one that a filter can have here", action)
	}
}

// failing returns the result by which a call fails.
func failing(errno unix.Errno) uint32 {
	return unix.SECCOMP_RET_ERRNO | uint32(errno)&unix.SECCOMP_RET_DATA
}

// lets reports whether a result lets a call through.
func lets(result uint32) bool {
	return result == unix.SECCOMP_RET_ALLOW || result == unix.SECCOMP_RET_LOG
}
