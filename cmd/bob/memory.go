package main

import (
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
)

// fitMemory has the garbage collector keep this process within a third of the memory that
// its container or service may use; the commands of RUN have the rest. Without it the
// kernel kills bob where the heap would have been twice as large as what is in use.
// GOMEMLIMIT, if set, says otherwise.
func fitMemory() {
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
// cgroups own, by controller, in bytes; math.MaxInt64 if there is none. The cgroup file
// systems are mounted in root. Where that shows a part of their trees only, as in
// containers, its top is the container's.
func memoryLimit(root string, own map[string]string) int64 {
	limit := int64(math.MaxInt64)
	for _, h := range []struct{ mount, path, file string }{
		{root, own[""], "memory.max"},                                           // cgroup v2
		{filepath.Join(root, "unified"), own[""], "memory.max"},                 // beside v1
		{filepath.Join(root, "memory"), own["memory"], "memory.limit_in_bytes"}, // v1
	} {
		for dir := filepath.Join("/", h.path); ; dir = filepath.Dir(dir) {
			data, err := os.ReadFile(filepath.Join(h.mount, dir, h.file))
			if err == nil {
				// Without a limit v2 says "max", v1 the largest multiple of a page.
				n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
				if err == nil && n > 0 && n < math.MaxInt64/2 {
					limit = min(limit, n)
				}
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit
}
