package isolation

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/containers/storage/pkg/unshare"
	"github.com/opencontainers/runtime-spec/specs-go"
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
