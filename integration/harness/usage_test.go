package harness

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestUsageOfEnded reads what a process and those that it waited for have used, before
// anybody waits for it and without a cgroup.
func TestUsageOfEnded(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "head -c 200000000 /dev/zero | sha256sum")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	used := usageOf(cmd.Process.Pid, nil)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	// The kernel tells the same in the end, in finer units.
	want := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	const ticks = 40 * time.Millisecond // four numbers, each cut off after hundredths of a second
	if used.CPU > want || used.CPU < want-ticks {
		t.Errorf("%v of processor time, want %v", used.CPU, want)
	}
	if tree, self := resident([]string{"/proc/self"}, "sh"); tree < int64(os.Getpagesize()) || self != 0 {
		t.Errorf("%d bytes resident, %d of them of sh", tree, self)
	}
}
