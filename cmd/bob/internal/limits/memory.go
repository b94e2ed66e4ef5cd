// Package limits looks at what cgroups and resource limits leave this process: it keeps
// the heap within the memory, and refuses a build where too few processes may start.
package limits

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
)

// FitMemory has the garbage collector keep this process within a third of the memory that
// its container or service may use; the commands of RUN have the rest. Without it the
// kernel kills bob where the heap would have been twice as large as what is in use.
// GOMEMLIMIT, if set, says otherwise.
func FitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return // not mounted: nothing limits
	}
	if limit := memoryLimit("/sys/fs/cgroup", own); limit < math.MaxInt64 {
		debug.SetMemoryLimit(limit / 3)
	}
}

// memoryLimit returns the least of the memory limits that hold for a process in the
// cgroups own, by controller, in bytes, or math.MaxInt64 without a limit.
func memoryLimit(root string, own map[string]string) int64 {
	limit := int64(math.MaxInt64)
	eachCgroup(root, own, "memory", func(dir string) {
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} { // of v2 and v1
			limit = min(limit, cgroupNumber(dir, file))
		}
	})
	return limit
}

// eachCgroup calls f for the directories of the cgroups that hold for a process in those
// called own, by controller: they and those above them. The cgroup file systems are
// mounted in root. Where that shows a part of their trees only, as in containers, its top
// is the container's.
func eachCgroup(root string, own map[string]string, controller string, f func(dir string)) {
	for _, h := range []struct{ mount, path string }{
		{root, own[""]}, // cgroup v2
		{filepath.Join(root, "unified"), own[""]},          // the same beside v1
		{filepath.Join(root, controller), own[controller]}, // v1
	} {
		for dir := filepath.Join("/", h.path); ; dir = filepath.Dir(dir) {
			f(filepath.Join(h.mount, dir))
			if dir == "/" {
				break
			}
		}
	}
}

// cgroupNumber returns what the file of a cgroup says, math.MaxInt64 if that is no limit:
// v2 says "max" then, v1 the largest multiple of a page.
func cgroupNumber(dir, file string) int64 {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return math.MaxInt64
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/2 {
		return math.MaxInt64
	}
	return n
}
