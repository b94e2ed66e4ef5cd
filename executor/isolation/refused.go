package isolation

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

	"github.com/bobbuild/bob/executor/obstacle"
)

// helpersMissing is that newuidmap and newgidmap aren't installed.
func helpersMissing() *obstacle.Obstacle {
	return obstacle.New(
		"without root, bob needs the programs newuidmap and newgidmap",
		"install them with `apt-get install uidmap` (Debian, Ubuntu) or `dnf install shadow-utils` (Fedora, RHEL)",
	)
}

// noRanges is that the account has no line in one of the ID files.
func (a account) noRanges() *obstacle.Obstacle {
	fix := "as root, run\n" + a.rangeAdvice()
	if a.known {
		uid, gid := freeRange(subUIDFile), freeRange(subGIDFile)
		fix += fmt.Sprintf("\nor the same by\n  usermod --add-subuids %d-%d --add-subgids %d-%d %s", uid, uid+RangeSize-1, gid, gid+RangeSize-1, a.name)
	}
	return obstacle.New(a.String()+" has no range of IDs to build with", fix)
}

// mapsRefused finds out why newuidmap and newgidmap refused. said is what they
// wrote.
func (a account) mapsRefused(said string) *obstacle.Obstacle {
	if said != "" {
		said = ": " + said
	}
	if !a.known {
		return obstacle.New(
			"newuidmap and newgidmap serve only users with an entry in /etc/passwd, unlike "+a.String()+said,
			fmt.Sprintf("as root, run\n  echo \"bob:x:%d:%d::/tmp:/bin/sh\" >> /etc/passwd", a.uid, a.gid),
		)
	}
	if o := helpersPowerless(); o != nil {
		return o
	}
	return obstacle.New(
		errMapRefused.Error()+" for "+a.String()+said,
		"check that the ranges of "+subUIDFile+" and "+subGIDFile+" belong to nobody else, and that they are IDs of this user namespace (/proc/self/uid_map)",
	)
}

// helpersPowerless says why newuidmap and newgidmap can't have the powers that
// they need; nil if they can.
func helpersPowerless() *obstacle.Obstacle {
	if statusField("NoNewPrivs") == "1" {
		return obstacle.New(
			"no_new_privs is set, with which newuidmap and newgidmap have no powers",
			"start bob without it: in Kubernetes\n  securityContext:\n    allowPrivilegeEscalation: true\nwith docker or podman, not with --security-opt no-new-privileges; in a systemd unit, NoNewPrivileges=no",
		)
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
			return obstacle.New(path+" is neither set-user-ID nor has file capabilities", "as root, run\n  chmod u+s "+path)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err == nil && st.Flags&unix.ST_NOSUID != 0 {
			return obstacle.New(path+" is on a file system mounted with nosuid, where it has no powers", "as root, run\n  mount -o remount,suid "+filepath.Dir(path)+"\nor put it on another file system")
		}
	}
	return nil
}

// explain says why the inner process didn't arrive and what to do about it.
// said is what it wrote to its standard error: messages of C code, which are
// made of strerror(3).
func (in *inner) explain(err error, said string) error {
	said = strings.TrimSpace(said)
	if found := new(obstacle.Obstacle); json.Unmarshal([]byte(said), found) == nil {
		return &enterError{"enter", unix.EPERM, found} // it ran, and was refused something
	}
	refused := func(errno unix.Errno) bool {
		return errors.Is(err, errno) || strings.Contains(said, capitalised(errno))
	}
	switch {
	case errors.Is(err, errMapRefused):
		return &enterError{"enter user namespace", errMapRefused, in.who.mapsRefused(in.log.helperMessages())}
	case in.userNS && refused(unix.ENOSPC):
		return &enterError{"enter user namespace", unix.ENOSPC, obstacle.NamespaceLimit()}
	case in.userNS && (refused(unix.EPERM) || refused(unix.EACCES)):
		return &enterError{"enter user namespace", unix.EPERM, obstacle.OfNamespaces()}
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
	obstacle *obstacle.Obstacle
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

func noUserNamespaces() *obstacle.Obstacle {
	return obstacle.New("this kernel is built without user namespaces (CONFIG_USER_NS)", "use another kernel, or run bob as root")
}

// noMountPowers is what root in a container without CAP_SYS_ADMIN meets.
func noMountPowers() *obstacle.Obstacle {
	return obstacle.New("root lacks CAP_SYS_ADMIN here", "start the container with --privileged, or let it make user namespaces")
}
