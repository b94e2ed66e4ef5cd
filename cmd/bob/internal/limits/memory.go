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

// FitMemory limits the heap of this process to a third of the memory that its container
// or service may use. The commands of RUN have the rest. Without the limit the heap may
// grow to twice what is in use, and the kernel kills bob. GOMEMLIMIT, if set, takes
// precedence.
func FitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return // no cgroups are mounted: there is no limit
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
