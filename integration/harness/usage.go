package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A Usage is what a run has used so far.
type Usage struct {
	CPU     time.Duration // user and system, of all its processes
	Written int64         // bytes of file systems that its first process and those that it waited for have changed
}

// usageOf reads the usage of a process and of all in its group, if that isn't nil. The
// process may have ended if nobody has waited for it.
func usageOf(pid int, group *cgroup) Usage {
	dir := fmt.Sprintf("/proc/%d", pid)
	used := Usage{CPU: group.used(), Written: written(dir)}
	if group == nil {
		used.CPU = ticks(dir)
	}
	return used
}

// resident sums up the resident memory of processes, which have these directories in
// /proc, and of those of them that execute a program with the name. A page that several
// processes share counts once, divided among them.
func resident(dirs []string, program string) (tree, self int64) {
	for _, dir := range dirs {
		bytes := values(dir + "/smaps_rollup")["Pss"] << 10
		if bytes == 0 {
			bytes = values(dir + "/status")["VmRSS"] << 10 // the former is for the same user and root alone
		}
		tree += bytes
		if exe, err := os.Readlink(dir + "/exe"); err == nil && filepath.Base(exe) == program {
			self += bytes
		}
	}
	return tree, self
}

// written reads what a process has written to file systems, less what it took back by
// truncating a file before the disk got it.
func written(dir string) int64 {
	io := values(dir + "/io")
	return io["write_bytes"] - io["cancelled_write_bytes"]
}

// values reads a file of names and numbers, a pair a line. It returns nil if the process
// has ended.
func values(path string) map[string]int64 {
	body, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	found := map[string]int64{}
	for line := range strings.Lines(string(body)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
			found[name] = n
		}
	}
	return found
}

// ticks reads the processor time of a process and of those that it waited for. The
// kernel tells it in hundredths of a second.
func ticks(dir string) time.Duration {
	body, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(body[strings.LastIndexByte(string(body), ')')+1:]))
	const first, last = 14 - 3, 17 - 3 // utime, stime, cutime, cstime of proc(5), which counts from 1; two stand before
	var sum time.Duration
	for i := first; i <= last && i < len(fields); i++ {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0
		}
		sum += time.Duration(n) * time.Second / 100
	}
	return sum
}
