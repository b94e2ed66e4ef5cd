package chroot

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killPause is how long killed processes are given to be gone.
const killPause = time.Millisecond

// killChildren kills the descendants of this process.
func killChildren() {
	parents := make(map[int]int)
	for _, pid := range processes() {
		parents[pid] = parentOf(pid)
	}
	for pid := range parents {
		for p := parents[pid]; p > 0; p = parents[p] {
			if p == os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
				break
			}
		}
	}
}

// processes returns the IDs of all processes that can be seen.
func processes() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	names, _ := dir.Readdirnames(-1) // what could be read counts
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parentOf returns the parent of a process, 0 if there is none. It is the second
// field after the name in proc_pid_stat(5), which anybody may read.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// lineage returns this process, those that it descends from, and the process groups that
// they are in, whose leaders may be gone.
func lineage() []int {
	var pids []int
	for pid := os.Getpid(); pid > 0; pid = parentOf(pid) {
		pids = append(pids, pid)
		if group, err := unix.Getpgid(pid); err == nil && group > 0 {
			pids = append(pids, group)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// killRooted ends the processes whose root is the directory, as far as this process
// may see their roots.
func killRooted(root string) error {
	want, err := os.Stat(root)
	if err != nil {
		return err
	}
	for {
		found := false
		for _, pid := range processes() {
			is, err := os.Stat(fmt.Sprintf("/proc/%d/root", pid))
			if err == nil && os.SameFile(is, want) {
				found = unix.Kill(pid, unix.SIGKILL) == nil || found
			}
		}
		if !found {
			return nil
		}
		time.Sleep(killPause)
	}
}
