// Package cgroup knows the control groups (cgroups(7)) that bob is in, of version 2 or 1,
// with the limits that they set for it, and makes those of RUN.
//
// A Limiter makes each run a cgroup at or above bob's own. Nothing stands in for one:
// RLIMIT_NPROC counts what the user runs elsewhere, and not what root of the container does.
package cgroup

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
)

// Root is where the cgroup file systems are mounted.
const Root = "/sys/fs/cgroup"

// Dirs returns the directories of the cgroups that hold for this process, of one
// controller: its own and those above it, in each hierarchy. Not all need exist. It
// returns no directory where no cgroups are mounted.
func Dirs(controller string) []string {
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	return DirsOf(Root, own, controller)
}

// DirsOf is [Dirs] of a process in the cgroups called own, by controller, when the file
// systems are mounted below root. Where root shows a part of their trees only, as in
// containers, its top is the container's.
func DirsOf(root string, own map[string]string, controller string) (dirs []string) {
	for _, h := range []struct{ mount, path string }{
		{root, own[""]}, // cgroup v2
		{filepath.Join(root, "unified"), own[""]},          // the same beside v1
		{filepath.Join(root, controller), own[controller]}, // v1
	} {
		for dir := filepath.Join("/", h.path); ; dir = filepath.Dir(dir) {
			dirs = append(dirs, filepath.Join(h.mount, dir))
			if dir == "/" {
				break
			}
		}
	}
	return dirs
}

// Number returns what the file of a cgroup says, math.MaxInt64 if that is no limit:
// v2 says "max" then, v1 the largest multiple of a page.
func Number(dir, file string) int64 {
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

// Count returns what a file of a cgroup, with a name and a number in each line, counts
// under the name; 0 if it doesn't.
func Count(dir, file, name string) int {
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(data) {
		if value, ok := strings.CutPrefix(string(line), name+" "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(value))
			return n
		}
	}
	return 0
}
