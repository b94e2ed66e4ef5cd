package isolation

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containers/storage/pkg/unshare"
	"github.com/moby/sys/capability"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// The files of subordinate IDs, subuid(5) and subgid(5).
const (
	subUIDFile = "/etc/subuid"
	subGIDFile = "/etc/subgid"
)

// The size of a suggested range and the lowest suggested ID: useradd(8)'s
// defaults.
const (
	RangeSize  = 65536
	rangeStart = 100000
)

// account is the user who runs bob, as the ID files name him.
type account struct {
	uid, gid int
	name     string // the UID in decimal when there is no passwd entry
	known    bool   // whether there is a passwd entry
}

// currentAccount returns the account of this process.
func currentAccount() account {
	a := account{uid: os.Getuid(), gid: os.Getgid()}
	a.name = strconv.Itoa(a.uid)
	if u, err := user.LookupId(a.name); err == nil {
		a.name, a.known = u.Username, true
	}
	return a
}

// subordinateMaps returns the maps of a user namespace in which the account is
// root and IDs from 1 up are those that the administrator gave it.
func (a account) subordinateMaps() (uids, gids []specs.LinuxIDMapping, err error) {
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, nil, &enterError{"enter user namespace", err, helpersMissing()}
		}
	}
	uids, gids, err = unshare.GetSubIDMappings(a.name, a.name)
	if err != nil {
		return nil, nil, &enterError{"enter user namespace", err, a.noRanges()}
	}
	return prependID(a.uid, uids), prependID(a.gid, gids), nil
}

// String names the account for messages.
func (a account) String() string {
	if a.known {
		return fmt.Sprintf("user %s (UID %d)", a.name, a.uid)
	}
	return fmt.Sprintf("UID %d (no entry in /etc/passwd)", a.uid)
}

// rangeAdvice returns the commands that give the account ranges which nobody
// else has.
func (a account) rangeAdvice() string {
	return fmt.Sprintf("  echo %q >> %s\n  echo %q >> %s",
		fmt.Sprintf("%s:%d:%d", a.name, freeRange(subUIDFile), RangeSize), subUIDFile,
		fmt.Sprintf("%s:%d:%d", a.name, freeRange(subGIDFile), RangeSize), subGIDFile)
}

// prependID returns maps in which ID is 0 and the ranges follow from 1 without
// a gap.
func prependID(id int, ranges []specs.LinuxIDMapping) []specs.LinuxIDMapping {
	maps := []specs.LinuxIDMapping{{HostID: uint32(id), Size: 1}}
	next := uint32(1)
	for _, r := range ranges {
		maps = append(maps, specs.LinuxIDMapping{ContainerID: next, HostID: r.HostID, Size: r.Size})
		next += r.Size
	}
	return maps
}

// freeRange returns the first ID after all ranges in the file.
func freeRange(file string) int {
	free := rangeStart
	f, err := os.Open(file)
	if err != nil {
		return free
	}
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(fields) != 3 {
			continue
		}
		start, errStart := strconv.Atoi(fields[1])
		size, errSize := strconv.Atoi(fields[2])
		if errStart == nil && errSize == nil {
			free = max(free, start+size)
		}
	}
	return free
}

// SameIDs returns maps for a user namespace with every ID of the current one.
func SameIDs() (uids, gids []syscall.SysProcIDMap, err error) {
	u, g, err := unshare.GetHostIDMappings("")
	if err != nil {
		return nil, nil, fmt.Errorf("read ID maps: %w", err)
	}
	return identity(u), identity(g), nil
}

// identity maps every container ID of maps to itself.
func identity(maps []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	same := make([]syscall.SysProcIDMap, 0, len(maps))
	for _, m := range maps {
		same = append(same, syscall.SysProcIDMap{
			ContainerID: int(m.ContainerID), HostID: int(m.ContainerID), Size: int(m.Size),
		})
	}
	return same
}

// checkMaps returns an error unless the process has maps of the wanted sizes.
// containers/storage falls back to one ID when newuidmap refuses; a build that
// then dies at the first chown would be harder to understand.
func checkMaps(pid int, uids, gids []specs.LinuxIDMapping) error {
	haveUIDs, haveGIDs, err := unshare.GetHostIDMappings(strconv.Itoa(pid))
	if err != nil {
		return fmt.Errorf("read ID maps of process %d: %w", pid, err)
	}
	if mapped(haveUIDs) < mapped(uids) || mapped(haveGIDs) < mapped(gids) {
		return errMapRefused
	}
	return nil
}

// errMapRefused says that newuidmap or newgidmap refused the wanted maps.
var errMapRefused = errors.New("newuidmap or newgidmap refused the ranges of " + subUIDFile + " and " + subGIDFile)

// CountIDs returns how many user IDs this process's user namespace has.
func CountIDs() (uint64, error) {
	uids, _, err := unshare.GetHostIDMappings("")
	return mapped(uids), err
}

// Ranges looks for what entering with more than one ID takes without root, and returns
// how many user IDs there are. An error is about an obstacle.
func Ranges() (uint64, error) {
	uids, _, err := currentAccount().subordinateMaps()
	if err != nil {
		return 0, err
	}
	if o := helpersPowerless(); o != nil {
		return 0, o
	}
	return mapped(uids), nil
}

// mapped returns the number of IDs in maps.
func mapped(maps []specs.LinuxIDMapping) (n uint64) {
	for _, m := range maps {
		n += uint64(m.Size)
	}
	return n
}

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
