package sandbox

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Versions of Landlock's interface (landlock(7)) by what they brought.
const (
	landlockRefer    = 2 // renaming and linking into another directory
	landlockTruncate = 3
	landlockIoctl    = 5 // on devices
	landlockScopes   = 6 // signals and abstract Unix sockets
)

// allScopes keep a thread and its descendants from the signals and abstract sockets
// of others.
const allScopes = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL

// landlockVersion returns the version of the kernel's interface, 0 if there is no
// Landlock or it is refused.
func landlockVersion() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
}

// landlock keeps this thread, whose no_new_privs is set, from all files but those
// below dir, from making devices of disks, and from the signals and abstract
// sockets of others, as far as that version can; without files, only from the latter.
func landlock(dir string, version int, files bool) error {
	switch {
	case version == 0, !files && version < landlockScopes:
		return nil
	case !files:
		return restrictThread(unix.LandlockRulesetAttr{Scoped: allScopes}, nil)
	}
	rules := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1}
	if version >= landlockRefer {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= landlockTruncate {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= landlockIoctl {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version >= landlockScopes {
		rules.Scoped = allScopes
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return restrictThread(rules, &unix.LandlockPathBeneathAttr{
		Allowed_access: rules.Handled_access_fs &^ unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK,
		Parent_fd:      int32(fd),
	})
}

// refers reports whether a thread that is kept from all files but those below dir, which it
// tries there, may still rename one into another directory. The kernel refuses that where a
// domain around this process has scopes alone, as that of a RUN: no rule of its own allows
// it then.
func refers(dir string, version int) bool {
	result := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the domain goes with the thread
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		for _, try := range []func() error{
			func() error { return landlock(dir, version, true) },
			func() error { return os.MkdirAll(filepath.Join(from, "x"), 0o700) },
			func() error { return os.Mkdir(to, 0o700) },
			func() error { return os.Rename(filepath.Join(from, "x"), filepath.Join(to, "x")) },
		} {
			if err == nil {
				err = try()
			}
		}
		result <- err == nil
	}()
	return <-result
}

// scopeThread keeps this thread, which must have CAP_SYS_ADMIN, and what it starts from
// then on from the signals and abstract sockets of others, where the kernel can do that
// and the thread isn't yet in as many domains as it may be. A thread that is kept from
// no file may make mounts.
func scopeThread() error {
	if landlockVersion() < landlockScopes {
		return nil
	}
	err := restrictThread(unix.LandlockRulesetAttr{Scoped: allScopes}, nil)
	if errors.Is(err, unix.E2BIG) {
		return nil // it is in as many
	}
	return err
}

// restrictThread restricts this thread by rules, and by one of files unless that is nil.
func restrictThread(rules unix.LandlockRulesetAttr, beneath *unix.LandlockPathBeneathAttr) error {
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), unsafe.Sizeof(rules), 0) //nolint:gosec // the call takes an address
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	defer unix.Close(int(set))
	if beneath != nil {
		_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(beneath)), 0, 0, 0) //nolint:gosec // likewise
		if errno != 0 {
			return os.NewSyscallError("landlock_add_rule", errno)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return nil
}
