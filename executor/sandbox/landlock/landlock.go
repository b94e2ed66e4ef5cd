// Package landlock restricts threads by the kernel's Landlock (landlock(7)), as far as
// that has come.
package landlock

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// Versions of Landlock's interface (landlock(7)) by what they brought.
const (
	Refer    = 2 // renaming and linking into another directory
	truncate = 3
	ioctl    = 5 // on devices
	Scopes   = 6 // signals and abstract Unix sockets
)

// allScopes keep a thread and its descendants from the signals and abstract sockets
// of others.
const allScopes = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL

// Version returns the version of the kernel's interface, 0 if there is no
// Landlock or it is refused.
func Version() int {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(version)
}

// Confine keeps this thread, whose no_new_privs is set, from all files but those
// below dir, from making devices of disks, and from the signals and abstract
// sockets of others, as far as that version can; without files, only from the latter.
func Confine(dir string, version int, files bool) error {
	switch {
	case version == 0, !files && version < Scopes:
		return nil
	case !files:
		return restrictThread(unix.LandlockRulesetAttr{Scoped: allScopes}, nil)
	}
	rules := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1}
	if version >= Refer {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= truncate {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= ioctl {
		rules.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if version >= Scopes {
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

// Refers reports whether a thread that is kept from all files but those below dir, which it
// tries there, may still rename one into another directory. The kernel refuses that where a
// domain around this process has scopes alone, as a RUN's has: no rule of its own allows it
// then.
func Refers(dir string, version int) bool {
	result := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the domain goes with the thread
		from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
		err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		for _, try := range []func() error{
			func() error { return Confine(dir, version, true) },
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

// ConfineScopes keeps this thread, which must have CAP_SYS_ADMIN, and what it starts from
// then on from the signals and abstract sockets of others, where the kernel can do that
// and the thread isn't yet in as many domains as it may be. A thread that is kept from
// no file may make mounts.
func ConfineScopes() error {
	if Version() < Scopes {
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
		_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(beneath)), 0, 0, 0) //nolint:gosec // the call takes an address
		if errno != 0 {
			return os.NewSyscallError("landlock_add_rule", errno)
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return nil
}

// MissingScopes is that the kernel's Landlock can't scope signals and abstract sockets,
// and what comes of it; nil if it can.
func MissingScopes(consequence string) *obstacle.Obstacle {
	switch version := Version(); {
	case version == 0:
		return obstacle.New("without Landlock "+consequence, "use a kernel that has it (CONFIG_SECURITY_LANDLOCK, and landlock among the lsm= of its command line)")
	case version < Scopes:
		return obstacle.New("this kernel's Landlock is so old that "+consequence, "use Linux 6.12 or later")
	}
	return nil
}
