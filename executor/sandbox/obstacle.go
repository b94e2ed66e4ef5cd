package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containers/storage/pkg/unshare"
	"github.com/moby/sys/capability"
	"golang.org/x/sys/unix"
)

// An Obstacle is what keeps bob from something on this machine. The errors of
// Enter and what Examine finds are made of the same ones.
type Obstacle struct { //nolint:errname // it is shown as a finding, too
	// Why says what refuses, without a full stop.
	Why string
	// Fix is how to have it allowed: a sentence, and commands or configuration
	// to copy in indented lines after it. "" means that nothing is known.
	Fix string
}

// Error returns both.
func (o *Obstacle) Error() string {
	if o.Fix == "" {
		return o.Why
	}
	return o.Why + ": " + o.Fix
}

// inContainer is what a container must be started with to make namespaces and
// mounts.
const inContainer = "start the container without its filters: with docker or podman\n" +
	"  --security-opt seccomp=unconfined --security-opt apparmor=unconfined\n" +
	"or in Kubernetes\n" +
	"  securityContext:\n" +
	"    seccompProfile: {type: Unconfined}\n" +
	"    appArmorProfile: {type: Unconfined}"

// sysctl returns the command that sets a kernel parameter.
func sysctl(name, value string) string {
	return fmt.Sprintf("as root, run\n  sysctl -w %s=%s", name, value)
}

// namespaceLimit is ENOSPC.
func namespaceLimit() *Obstacle {
	return &Obstacle{
		"the limit of user namespaces is reached (user.max_user_namespaces=" + parameter("user.max_user_namespaces") + ")",
		sysctl("user.max_user_namespaces", "15000"),
	}
}

func noUserNamespaces() *Obstacle {
	return &Obstacle{"this kernel is built without user namespaces (CONFIG_USER_NS)", "use another kernel, or run bob as root"}
}

// namespacesRefused finds out what refused user namespaces with EPERM or EACCES.
func namespacesRefused() *Obstacle {
	switch {
	case unshareFiltered():
		return &Obstacle{"a seccomp filter refuses user namespaces", inContainer}
	case chrooted():
		return &Obstacle{"bob runs in a chroot, where the kernel refuses user namespaces", "run bob outside of it, or have the chroot made by a container engine or systemd-nspawn, which use pivot_root"}
	case parameter("kernel.apparmor_restrict_unprivileged_userns") == "1":
		return appArmorRestriction()
	case parameter("kernel.unprivileged_userns_clone") == "0":
		return &Obstacle{"this machine refuses user namespaces to users other than root (kernel.unprivileged_userns_clone=0)", sysctl("kernel.unprivileged_userns_clone", "1")}
	case parameter("user.max_user_namespaces") == "0":
		return namespaceLimit()
	}
	return &Obstacle{"something refuses user namespaces, most likely AppArmor or SELinux", "look for a denial in the kernel log (dmesg), or " + inContainer}
}

// appArmorRestriction is that of Ubuntu since 23.10.
func appArmorRestriction() *Obstacle {
	executable, err := os.Executable()
	if err != nil {
		executable = "/usr/local/bin/bob"
	}
	return &Obstacle{
		"AppArmor takes their powers from user namespaces of programs without a profile (kernel.apparmor_restrict_unprivileged_userns=1)",
		"give bob a profile: as root, run\n" +
			"  cat > /etc/apparmor.d/bob <<'END'\n" +
			"  abi <abi/4.0>,\n" +
			"  include <tunables/global>\n" +
			"  profile bob \"" + executable + "\" flags=(unconfined) {\n" +
			"    userns,\n" +
			"  }\n" +
			"  END\n" +
			"  apparmor_parser -r /etc/apparmor.d/bob\n" +
			"or, for all programs,\n" +
			"  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
	}
}

// noMountPowers is what root in a container without CAP_SYS_ADMIN meets.
func noMountPowers() *Obstacle {
	return &Obstacle{"root lacks CAP_SYS_ADMIN here", "start the container with --privileged, or let it make user namespaces"}
}

// mountsRefused finds out what refuses mounts where bob has the powers for them.
func mountsRefused() *Obstacle {
	// The kernel reads the addresses, which aren't any, before it looks at
	// permissions: an error other than EFAULT is a filter's.
	_, _, errno := unix.Syscall6(unix.SYS_MOUNT, 1, 1, 1, 0, 0, 0)
	if errno != unix.EFAULT {
		return &Obstacle{"a seccomp filter refuses mounts", inContainer}
	}
	if parameter("kernel.apparmor_restrict_unprivileged_userns") == "1" {
		return appArmorRestriction()
	}
	if profile, err := os.ReadFile("/proc/self/attr/apparmor/current"); err == nil && !strings.HasPrefix(string(profile), "unconfined") {
		return &Obstacle{"the AppArmor profile " + strings.TrimSpace(string(profile)) + " refuses mounts", inContainer}
	}
	return &Obstacle{"something refuses mounts, most likely AppArmor or SELinux", "look for a denial in the kernel log (dmesg), or " + inContainer}
}

// helpersMissing is that newuidmap and newgidmap aren't installed.
func helpersMissing() *Obstacle {
	return &Obstacle{
		"without root, bob needs the programs newuidmap and newgidmap",
		"install them with `apt-get install uidmap` (Debian, Ubuntu) or `dnf install shadow-utils` (Fedora, RHEL)",
	}
}

// noRanges is that the account has no line in one of the ID files.
func (a account) noRanges() *Obstacle {
	fix := "as root, run\n" + a.rangeAdvice()
	if a.known {
		uid, gid := freeRange(subUIDFile), freeRange(subGIDFile)
		fix += fmt.Sprintf("\nor the same by\n  usermod --add-subuids %d-%d --add-subgids %d-%d %s", uid, uid+rangeSize-1, gid, gid+rangeSize-1, a.name)
	}
	return &Obstacle{a.String() + " has no range of IDs to build with", fix}
}

// mapsRefused finds out why newuidmap and newgidmap refused. said is what they
// wrote.
func (a account) mapsRefused(said string) *Obstacle {
	if said != "" {
		said = ": " + said
	}
	if !a.known {
		return &Obstacle{
			"newuidmap and newgidmap serve only users with an entry in /etc/passwd, unlike " + a.String() + said,
			fmt.Sprintf("as root, run\n  echo \"bob:x:%d:%d::/tmp:/bin/sh\" >> /etc/passwd", a.uid, a.gid),
		}
	}
	if o := helpersPowerless(); o != nil {
		return o
	}
	return &Obstacle{
		errMapRefused.Error() + " for " + a.String() + said,
		"check that the ranges of " + subUIDFile + " and " + subGIDFile + " belong to nobody else, and that they are IDs of this user namespace (/proc/self/uid_map)",
	}
}

// helpersPowerless says why newuidmap and newgidmap can't have the powers that
// they need; nil if they can.
func helpersPowerless() *Obstacle {
	if statusField("NoNewPrivs") == "1" {
		return &Obstacle{
			"no_new_privs is set, with which newuidmap and newgidmap have no powers",
			"start bob without it: in Kubernetes\n  securityContext:\n    allowPrivilegeEscalation: true\nwith docker or podman, not with --security-opt no-new-privileges; in a systemd unit, NoNewPrivileges=no",
		}
	}
	for _, helper := range []struct {
		program string
		power   capability.Cap
	}{{"newuidmap", capability.CAP_SETUID}, {"newgidmap", capability.CAP_SETGID}} {
		path, err := exec.LookPath(helper.program)
		if err != nil {
			return helpersMissing()
		}
		if has, err := unshare.IsSetID(path, os.ModeSetuid, helper.power); !has && (err == nil || errors.Is(err, unix.ENODATA)) {
			return &Obstacle{path + " is neither set-user-ID nor has file capabilities", "as root, run\n  chmod u+s " + path}
		}
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err == nil && st.Flags&unix.ST_NOSUID != 0 {
			return &Obstacle{path + " is on a file system mounted with nosuid, where it has no powers", "as root, run\n  mount -o remount,suid " + filepath.Dir(path) + "\nor put it on another file system"}
		}
	}
	return nil
}

// scopesMissing is that the kernel's Landlock can't scope signals and abstract sockets,
// and what comes of it; nil if it can.
func scopesMissing(consequence string) *Obstacle {
	switch version := landlockVersion(); {
	case version == 0:
		return &Obstacle{"without Landlock " + consequence, "use a kernel that has it (CONFIG_SECURITY_LANDLOCK, and landlock among the lsm= of its command line)"}
	case version < landlockScopes:
		return &Obstacle{"this kernel's Landlock is so old that " + consequence, "use Linux 6.12 or later"}
	}
	return nil
}

// explain says why the inner process didn't arrive and what to do about it.
// said is what it wrote to its standard error: messages of C code, which are
// made of strerror(3).
func (in *inner) explain(err error, said string) error {
	said = strings.TrimSpace(said)
	if obstacle := new(Obstacle); json.Unmarshal([]byte(said), obstacle) == nil {
		return &enterError{"enter", unix.EPERM, obstacle} // it ran, and was refused something
	}
	refused := func(errno unix.Errno) bool {
		return errors.Is(err, errno) || strings.Contains(said, capitalised(errno))
	}
	switch {
	case errors.Is(err, errMapRefused):
		return &enterError{"enter user namespace", errMapRefused, in.who.mapsRefused(in.log.helperMessages())}
	case in.userNS && refused(unix.ENOSPC):
		return &enterError{"enter user namespace", unix.ENOSPC, namespaceLimit()}
	case in.userNS && (refused(unix.EPERM) || refused(unix.EACCES)):
		return &enterError{"enter user namespace", unix.EPERM, namespacesRefused()}
	case in.userNS && (refused(unix.EINVAL) || refused(unix.ENOSYS)):
		return &enterError{"enter user namespace", err, noUserNamespaces()}
	case refused(unix.EPERM):
		return &enterError{"enter mount namespace", unix.EPERM, noMountPowers()}
	case said != "":
		return fmt.Errorf("enter: %w: %s", err, said)
	}
	return fmt.Errorf("enter: %w", err)
}

// enterError is Enter's for an obstacle.
type enterError struct {
	what     string
	err      error
	obstacle *Obstacle
}

func (e *enterError) Error() string {
	return fmt.Sprintf("%s: %v: %v", e.what, e.err, e.obstacle)
}

// Unwrap returns the system's error and the obstacle.
func (e *enterError) Unwrap() []error { return []error{e.err, e.obstacle} }

// capitalised returns the text that the C library has for errno, which differs
// from Go's in its first letter.
func capitalised(errno unix.Errno) string {
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// parameter returns the value of a kernel parameter, "" if there is none.
func parameter(name string) string {
	value, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}

// statusField returns a field of this process's status, proc_pid_status(5).
func statusField(name string) string {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(status), "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(value)
}

// exitSignal is a flag of clone(2) alone.
const exitSignal = 0xff // CSIGNAL

// unshareFiltered reports whether a seccomp filter refuses unshare of a user
// namespace. The kernel knows no such flag and says so before it looks at
// permissions: any other error than EINVAL is a filter's.
func unshareFiltered() bool {
	_, _, errno := unix.Syscall(unix.SYS_UNSHARE, unix.CLONE_NEWUSER|exitSignal, 0, 0)
	return errno != 0 && errno != unix.EINVAL
}

// chrooted reports whether this process is in a chroot. In one that isn't a mount
// point itself, no mount is at /.
func chrooted() bool {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && !mountsRoot(string(mounts))
}

// mountsRoot reports whether a line of mountinfo, proc_pid_mountinfo(5), is about /.
func mountsRoot(mounts string) bool {
	for line := range strings.Lines(mounts) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == "/" {
			return true
		}
	}
	return false
}
