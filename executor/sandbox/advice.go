package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// explain says why the inner process didn't arrive and what to do about it.
// said is what it wrote to its standard error: messages of C code, which are
// made of strerror(3).
func (in *inner) explain(err error, said string) error {
	said = strings.TrimSpace(said)
	refused := func(errno unix.Errno) bool {
		return errors.Is(err, errno) || strings.Contains(said, capitalised(errno))
	}
	user := in.cmd.SysProcAttr.Cloneflags&unix.CLONE_NEWUSER != 0 || os.Geteuid() != 0
	switch {
	case errors.Is(err, errMapRefused):
		return fmt.Errorf("enter user namespace: %w for %s: %s", errMapRefused, in.who, in.mapAdvice())
	case user && refused(unix.ENOSPC):
		return fmt.Errorf("enter user namespace: %w: the limit of user namespaces is reached: as root, run `sysctl -w user.max_user_namespaces=15000`", unix.ENOSPC)
	case user && (refused(unix.EPERM) || refused(unix.EACCES)):
		return fmt.Errorf("enter user namespace: %w: %s", unix.EPERM, permissionAdvice())
	case user && (refused(unix.EINVAL) || refused(unix.ENOSYS)):
		return fmt.Errorf("enter user namespace: %w: this kernel is built without user namespaces (CONFIG_USER_NS)", errors.Join(err))
	case refused(unix.EPERM):
		return fmt.Errorf("enter mount namespace: %w: root lacks CAP_SYS_ADMIN here: use --rootless, or start the container with --privileged", unix.EPERM)
	case said != "":
		return fmt.Errorf("enter: %w: %s", err, said)
	}
	return fmt.Errorf("enter: %w", err)
}

// capitalised returns the text that the C library has for errno, which differs
// from Go's in its first letter.
func capitalised(errno unix.Errno) string {
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// mapAdvice says what to do when newuidmap refused.
func (in *inner) mapAdvice() string {
	advice := "check that newuidmap and newgidmap are setuid root (chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap) and not on a nosuid file system"
	if !in.who.known {
		advice = fmt.Sprintf("they serve only users with an entry in /etc/passwd: as root, run\n  echo \"bob:x:%d:%d::/tmp:/bin/sh\" >> /etc/passwd", in.who.uid, in.who.gid)
	}
	for _, message := range in.log.messages {
		if _, said, found := strings.Cut(message, "running new"); found {
			advice += "\nnew" + said
		}
	}
	return advice
}

// permissionAdvice says what refuses user namespaces and how to allow them.
func permissionAdvice() string {
	for _, sysctl := range []struct{ name, refuses, allow string }{
		{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
		{"kernel.unprivileged_userns_clone", "0", "1"},
		{"user.max_user_namespaces", "0", "15000"},
	} {
		value, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(sysctl.name, ".", "/"))
		if err == nil && strings.TrimSpace(string(value)) == sysctl.refuses {
			return fmt.Sprintf("the machine refuses user namespaces (%s=%s): as root, run `sysctl -w %s=%s`", sysctl.name, sysctl.refuses, sysctl.name, sysctl.allow)
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err == nil && strings.Contains(string(status), "\nSeccomp:\t2\n") {
		return "a seccomp filter refuses user namespaces: start the container that bob is in with --security-opt seccomp=unconfined (in Kubernetes, seccompProfile: Unconfined)"
	}
	return "the machine refuses user namespaces: look for an AppArmor or SELinux denial in the kernel log"
}
