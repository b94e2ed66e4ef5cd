package chroot

import (
	"os"
	"path/filepath"
)

// procFiles are the files of /proc that a command finds a copy of: they tell of the
// machine, and not of any process.
var procFiles = [...]string{
	"cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "uptime", "version",
	"sys/kernel/cap_last_cap", "sys/kernel/ngroups_max", "sys/kernel/osrelease", "sys/kernel/ostype", "sys/kernel/pid_max",
}

// makeProc makes the /proc of a command.
func makeProc(dir string) error {
	if err := makeDir(dir, 0o555); err != nil {
		return err
	}
	for _, sub := range []string{"sys", "sys/kernel"} {
		if err := makeDir(filepath.Join(dir, sub), 0o555); err != nil {
			return err
		}
	}
	for _, name := range procFiles {
		content, err := os.ReadFile(filepath.Join("/proc", name))
		if err != nil {
			continue // this kernel has no such file, or the container hides it
		}
		if err := makeFile(filepath.Join(dir, name), content, 0o444); err != nil {
			return err
		}
	}
	return nil
}
