// Package limits looks at what cgroups and resource limits leave this process: it keeps
// the heap within the memory, and refuses a build where too few processes may start.
package limits

import (
	"math"
	"os"
	"runtime/debug"

	"github.com/bobbuild/bob/executor/cgroup"
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
	if limit := memoryLimit(cgroup.Root, own); limit < math.MaxInt64 {
		debug.SetMemoryLimit(limit / 3)
	}
}

// memoryLimit returns the least of the memory limits that hold for a process in the
// cgroups own, by controller, in bytes, or math.MaxInt64 without a limit.
func memoryLimit(root string, own map[string]string) int64 {
	limit := int64(math.MaxInt64)
	for _, dir := range cgroup.DirsOf(root, own, "memory") {
		for _, file := range []string{"memory.max", "memory.limit_in_bytes"} { // of v2 and v1
			limit = min(limit, cgroup.Number(dir, file))
		}
	}
	return limit
}
