// Package obstacle says what keeps bob from something on this machine, and how to have
// it allowed.
package obstacle

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// An Obstacle is what keeps bob from something on this machine. Errors of entering and the
// findings of bob doctor are made of the same ones.
type Obstacle struct { //nolint:errname // it is shown as a finding, too
	// Why says what refuses, without a full stop.
	Why string
	// Fix is how to allow it: a sentence, and commands or configuration
	// to copy in indented lines after it. "" means that nothing is known.
	Fix string
}

// New returns the obstacle with what refuses, and how to allow it.
func New(why, fix string) *Obstacle { return &Obstacle{why, fix} }

// Error returns both.
func (o *Obstacle) Error() string {
	if o.Fix == "" {
		return o.Why
	}
	return o.Why + ": " + o.Fix
}

// WithoutFilters is what a container must be started with to make namespaces and
// mounts.
const WithoutFilters = "start the container without its filters: with docker or podman\n" +
	"  --security-opt seccomp=unconfined --security-opt apparmor=unconfined\n" +
	"or in Kubernetes\n" +
	"  securityContext:\n" +
	"    seccompProfile: {type: Unconfined}\n" +
	"    appArmorProfile: {type: Unconfined}"

// sysctl returns the command that sets a kernel parameter.
func sysctl(name, value string) string {
	return fmt.Sprintf("as root, run\n  sysctl -w %s=%s", name, value)
}

// NamespaceLimit is the obstacle where the kernel refuses user namespaces with ENOSPC.
func NamespaceLimit() *Obstacle {
	return New(
		"the limit of user namespaces is reached (user.max_user_namespaces="+parameter("user.max_user_namespaces")+")",
		sysctl("user.max_user_namespaces", "15000"),
	)
}

// OfNamespaces finds out what refused user namespaces with EPERM or EACCES.
func OfNamespaces() *Obstacle {
	switch {
	case unshareFiltered():
		return New("a seccomp filter refuses user namespaces", WithoutFilters)
	case chrooted():
		return New("bob runs in a chroot, where the kernel refuses user namespaces", "run bob outside of it, or have the chroot made by a container engine or systemd-nspawn, which use pivot_root")
	case parameter("kernel.apparmor_restrict_unprivileged_userns") == "1":
		return appArmorRestriction()
	case parameter("kernel.unprivileged_userns_clone") == "0":
		return New("this machine refuses user namespaces to users other than root (kernel.unprivileged_userns_clone=0)", sysctl("kernel.unprivileged_userns_clone", "1"))
	case parameter("user.max_user_namespaces") == "0":
		return NamespaceLimit()
	}
	return New("something refuses user namespaces, most likely AppArmor or SELinux", "look for a denial in the kernel log (dmesg), or "+WithoutFilters)
}

// appArmorRestriction is the obstacle of Ubuntu since 23.10.
func appArmorRestriction() *Obstacle {
	executable, err := os.Executable()
	if err != nil {
		executable = "/usr/local/bin/bob"
	}
	return New(
		"AppArmor takes their powers from user namespaces of programs without a profile (kernel.apparmor_restrict_unprivileged_userns=1)",
		"give bob a profile: as root, run\n"+
			"  cat > /etc/apparmor.d/bob <<'END'\n"+
			"  abi <abi/4.0>,\n"+
			"  include <tunables/global>\n"+
			"  profile bob \""+executable+"\" flags=(unconfined) {\n"+
			"    userns,\n"+
			"  }\n"+
			"  END\n"+
			"  apparmor_parser -r /etc/apparmor.d/bob\n"+
			"or, for all programs,\n"+
			"  sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
	)
}

// OfMounts finds out what refuses mounts where bob has the powers for them.
func OfMounts() *Obstacle {
	// The kernel reads the addresses, which aren't any, before it looks at
	// permissions: an error other than EFAULT is a filter's.
	_, _, errno := unix.Syscall6(unix.SYS_MOUNT, 1, 1, 1, 0, 0, 0)
	if errno != unix.EFAULT {
		return New("a seccomp filter refuses mounts", WithoutFilters)
	}
	if parameter("kernel.apparmor_restrict_unprivileged_userns") == "1" {
		return appArmorRestriction()
	}
	if profile, err := os.ReadFile("/proc/self/attr/apparmor/current"); err == nil && !strings.HasPrefix(string(profile), "unconfined") {
		return New("the AppArmor profile "+strings.TrimSpace(string(profile))+" refuses mounts", WithoutFilters)
	}
	return New("something refuses mounts, most likely AppArmor or SELinux", "look for a denial in the kernel log (dmesg), or "+WithoutFilters)
}

// parameter returns the value of a kernel parameter, "" if there is none.
func parameter(name string) string {
	value, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
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
