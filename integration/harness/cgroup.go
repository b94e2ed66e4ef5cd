package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A cgroup holds every process of one run, whatever namespaces and sessions
// they hide in. It is nil where the harness can't make one.
type cgroup struct {
	path string
	dir  *os.File
}

func newCgroup(name string) (*cgroup, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
			continue
		}
		path := filepath.Join(root, "bob-test-"+name)
		if err := os.Mkdir(path, 0o755); errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			return nil, nil // a container whose cgroups are read-only
		} else if err != nil {
			return nil, fmt.Errorf("make cgroup: %w", err)
		}
		dir, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open cgroup: %w", err)
		}
		return &cgroup{path: path, dir: dir}, nil
	}
	return nil, nil
}

func (c *cgroup) apply(attr *syscall.SysProcAttr) {
	if c != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(c.dir.Fd())
	}
}

// used returns the processor time of all processes that the group has ever held; 0 if
// it is nil.
func (c *cgroup) used() time.Duration {
	if c == nil {
		return 0
	}
	body, err := os.ReadFile(filepath.Join(c.path, "cpu.stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(body)) // begins with usage_usec, which every kernel gives
	if len(fields) < 2 {
		return 0
	}
	microseconds, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(microseconds) * time.Microsecond
}

// processes lists the processes in the group, and the groups made below it.
func (c *cgroup) processes() []string {
	var found []string
	err := filepath.WalkDir(c.path, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if path != c.path {
			found = append(found, "cgroup "+path)
		}
		pids, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(pids)) {
			found = append(found, describe("/proc/"+pid))
		}
		return err
	})
	if err != nil {
		found = append(found, err.Error())
	}
	return found
}

// remove kills what is left in the group and removes it.
func (c *cgroup) remove() {
	if c == nil {
		return
	}
	_ = os.WriteFile(filepath.Join(c.path, "cgroup.kill"), []byte("1"), 0o644)
	_ = c.dir.Close()
	for range 100 {
		if err := os.Remove(c.path); err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// describe names the process of the directory in /proc.
func describe(dir string) string {
	command, _ := os.ReadFile(dir + "/cmdline")
	return "process " + filepath.Base(dir) + ": " + strings.ReplaceAll(strings.Trim(string(command), "\x00"), "\x00", " ")
}
