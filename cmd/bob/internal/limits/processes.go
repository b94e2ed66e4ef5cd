package limits

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/executor/cgroup"
	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// leastTasks is how many processes and threads a small build takes. If it can't start
// one, Go's runtime ends the process with pages of its state in place of a reason.
const leastTasks = 32

// CheckProcesses refuses to build where too few processes may be started.
func CheckProcesses() error {
	if os.Geteuid() != 0 { // the first limit doesn't hold for root
		var limit unix.Rlimit
		const many = 1024 // with as many, counting is not worth its time
		if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err == nil && limit.Cur < many {
			if err := enough("the limit of processes of a user (ulimit -u)", int64(limit.Cur), tasksOf(os.Getuid())); err != nil {
				return err
			}
		}
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return nil //nolint:nilerr // not mounted: nothing limits
	}
	return checkPIDs(cgroup.Root, own)
}

// checkPIDs is checkProcesses for the limits of the cgroups called own, by controller,
// whose file systems are mounted below root.
func checkPIDs(root string, own map[string]string) error {
	for _, dir := range cgroup.DirsOf(root, own, "pids") {
		limit := cgroup.Number(dir, "pids.max")
		if limit == math.MaxInt64 {
			continue
		}
		used := cgroup.Number(dir, "pids.current")
		if used == math.MaxInt64 {
			used = 0
		}
		if err := enough("the limit of processes of the container or service (pids.max in "+dir+")", limit, used); err != nil {
			return err
		}
	}
	return nil
}

// enough refuses a limit that leaves too few processes.
func enough(what string, limit, used int64) error {
	if limit-used >= leastTasks {
		return nil
	}
	return fmt.Errorf("%s is %d, and %d are running: a build takes %d more processes and threads, and what its commands start: raise it to %d or more",
		what, limit, used, leastTasks, used+8*leastTasks)
}

// tasksOf returns how many processes and threads of the user there are, as far as this
// process may see them.
func tasksOf(uid int) (n int64) {
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		var owner, threads int64
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(line, ":")
			fields := strings.Fields(value)
			switch {
			case len(fields) == 0:
			case key == "Uid":
				owner, _ = strconv.ParseInt(fields[0], 10, 64)
			case key == "Threads":
				threads, _ = strconv.ParseInt(fields[0], 10, 64)
			}
		}
		if owner == int64(uid) {
			n += threads
		}
	}
	return n
}
