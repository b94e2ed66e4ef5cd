package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// Limits bound what the command of a Process and all that it starts use together.
// In each, 0 is no limit.
type Limits struct {
	Memory int64   // in bytes, without a share of the swap space beside it
	CPUs   float64 // of CPU time in a unit of time
	PIDs   int64   // processes and threads
}

// controllers returns what of the kernel enforces the limits.
func (l Limits) controllers() []string {
	var names []string
	for _, limit := range []struct {
		controller string
		wanted     bool
	}{{"memory", l.Memory > 0}, {"cpu", l.CPUs > 0}, {"pids", l.PIDs > 0}} {
		if limit.wanted {
			names = append(names, limit.controller)
		}
	}
	return names
}

// cpuPeriod is the unit of time in which CPU time is counted, in microseconds.
const cpuPeriod = 100_000

// A setting is a file of a cgroup and what is written to it.
type setting struct {
	file, value string
	optional    bool // where the kernel may lack it
}

// settings returns what enforces the limits of one controller.
func (l Limits) settings(controller string, v2 bool) []setting {
	memory, quota := strconv.FormatInt(l.Memory, 10), strconv.FormatInt(int64(l.CPUs*cpuPeriod), 10)
	switch {
	case controller == "pids":
		return []setting{{"pids.max", strconv.FormatInt(l.PIDs, 10), false}}
	case controller == "memory" && v2:
		return []setting{{"memory.max", memory, false}, {"memory.swap.max", "0", true}}
	case controller == "memory":
		return []setting{{"memory.limit_in_bytes", memory, false}, {"memory.memsw.limit_in_bytes", memory, true}}
	case v2:
		return []setting{{"cpu.max", quota + " " + strconv.Itoa(cpuPeriod), false}}
	}
	return []setting{{"cpu.cfs_period_us", strconv.Itoa(cpuPeriod), false}, {"cpu.cfs_quota_us", quota, false}}
}

// A Limiter gives each run a cgroup with the same limits. Its methods may be called
// concurrently. The caller closes it, after all runs.
type Limiter struct {
	limits Limits
	tree   int // the cgroup file systems, writable and mounted nowhere
	homes  []home
	undo   []func() error
}

// A home is where the cgroups of runs are made.
type home struct {
	dir         string
	v2          bool
	controllers []string // of the limits, that are in force below
}

// NewLimiter returns a Limiter of the limits, nil without limits. The process must have
// entered. That no cgroup can be had for them is an *obstacle.Obstacle. It removes what
// killed processes have left.
func NewLimiter(l Limits) (*Limiter, error) {
	if len(l.controllers()) == 0 {
		return nil, nil
	}
	limiter := &Limiter{limits: l, tree: -1}
	if err := limiter.open(); err != nil {
		return nil, errors.Join(err, limiter.Close())
	}
	return limiter, nil
}

// noCgroup is that RUN can't be limited.
func noCgroup(why string) *obstacle.Obstacle {
	return obstacle.New(
		"RUN can't be limited: "+why,
		"give bob a cgroup of its own, with cgroup v2 and systemd\n"+
			"  systemd-run --user --scope -p Delegate=yes bob build …\n"+
			"in a container with docker or podman, --cgroupns=private and a writable "+Root,
	)
}

func (l *Limiter) open() error {
	// Enter has made them read-only, where the command of a RUN could see them.
	tree, err := unix.OpenTree(unix.AT_FDCWD, Root, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return noCgroup(Root + ": open_tree: " + err.Error())
	}
	l.tree = tree
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	if err != nil {
		return noCgroup(Root + " is read-only: " + err.Error())
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(Root))
	if err != nil {
		return err
	}
	own, err := cgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	for _, controller := range l.limits.controllers() {
		found, err := l.find(controller, mounts, own)
		if err != nil {
			return noCgroup(err.Error())
		}
		if i := slices.IndexFunc(l.homes, func(h home) bool { return h.dir == found.dir }); i >= 0 {
			l.homes[i].controllers = append(l.homes[i].controllers, controller)
		} else {
			l.homes = append(l.homes, *found)
		}
	}
	for _, h := range l.homes {
		h.sweep()
	}
	return nil
}

// find finds where cgroups with the controller can be made: at or above this
// process's own.
func (l *Limiter) find(controller string, mounts []*mountinfo.Info, own map[string]string) (*home, error) {
	for _, m := range mounts {
		v1 := m.FSType == "cgroup" && slices.Contains(strings.Split(m.VFSOptions, ","), controller)
		if !v1 && m.FSType != "cgroup2" {
			continue
		}
		root := filepath.Join(fmt.Sprintf("/proc/self/fd/%d", l.tree), strings.TrimPrefix(m.Mountpoint, Root))
		if v1 {
			dir := filepath.Join(root, within(m.Root, own[controller]))
			if err := writable(dir); err != nil {
				return nil, fmt.Errorf("no cgroup with the controller %s is delegated to this user: %w", controller, err)
			}
			return &home{dir: dir, controllers: []string{controller}}, nil
		}
		if known, _ := os.ReadFile(root + "/cgroup.controllers"); slices.Contains(strings.Fields(string(known)), controller) {
			dir, err := l.delegated(root, within(m.Root, own[""]))
			if err != nil {
				return nil, err
			}
			return &home{dir: dir, v2: true, controllers: []string{controller}}, nil
		}
	}
	return nil, fmt.Errorf("there is no cgroup controller %s at %s", controller, Root)
}

// within returns the path of a cgroup below the root of a mount, "/" if it isn't
// there.
func within(root, path string) string {
	rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/"))
	if !ok || rest != "" && rest[0] != '/' || strings.HasPrefix(path, "/..") {
		return "/"
	}
	return filepath.Join("/", rest)
}

// writable returns an error unless cgroups can be made in dir, and processes of it
// moved to them.
func writable(dir string) error {
	for _, path := range []string{dir, dir + "/cgroup.procs"} {
		if err := unix.Access(path, unix.W_OK); err != nil {
			return err
		}
	}
	return nil
}

// delegated finds the cgroup of v2, at or above the process's own, below which all
// controllers of the limits are in force or can be put in force. No processes but
// bob's are moved for that.
func (l *Limiter) delegated(root, own string) (string, error) {
	wanted := l.limits.controllers()
	var first error
	for path := own; ; path = filepath.Dir(path) {
		dir := filepath.Join(root, path)
		err := writable(dir)
		if err == nil {
			err = l.enable(dir, wanted)
		}
		if err == nil {
			return dir, nil
		}
		if first == nil {
			first = fmt.Errorf("the cgroup %s: %w", path, err)
		}
		if path == "/" {
			return "", first
		}
	}
}

// enable puts the controllers in force below dir. Unless dir is the kernel's own
// root no process may be in it then: bob makes itself a cgroup there.
func (l *Limiter) enable(dir string, wanted []string) error {
	inForce, err := os.ReadFile(dir + "/cgroup.subtree_control")
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(slices.Clone(wanted), func(c string) bool {
		return slices.Contains(strings.Fields(string(inForce)), c)
	})
	if len(missing) == 0 {
		return nil
	}
	if _, err := os.Stat(dir + "/cgroup.type"); err == nil {
		if err := l.moveDown(dir); err != nil {
			return err
		}
	}
	control := func(sign string) error {
		return os.WriteFile(dir+"/cgroup.subtree_control", []byte(sign+strings.Join(missing, " "+sign)), 0)
	}
	if err := control("+"); err != nil {
		return err
	}
	l.undo = append(l.undo, func() error { return control("-") })
	return nil
}

// moveDown moves bob, which must be alone in dir, to a new cgroup below.
func (l *Limiter) moveDown(dir string) error {
	procs, err := os.ReadFile(dir + "/cgroup.procs")
	if err != nil {
		return err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(procs)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid != os.Getpid() && pid != os.Getppid() {
			return fmt.Errorf("process %s is in it, too", field)
		}
		pids = append(pids, pid)
	}
	if len(pids) == 0 {
		return nil
	}
	below := filepath.Join(dir, fmt.Sprintf("%s%d-self", prefix, os.Getpid()))
	if err := os.Mkdir(below, 0o755); err != nil { //nolint:gosec // as the kernel's
		return err
	}
	l.undo = append(l.undo, func() error { return errors.Join(move(pids, dir), cgroups.RemovePath(below)) })
	return move(pids, below)
}

func move(pids []int, dir string) error {
	for _, pid := range pids {
		if err := cgroups.WriteCgroupProc(dir, pid); err != nil {
			return err
		}
	}
	return nil
}

// prefix begins the names of bob's cgroups.
const prefix = "bob-run-"

// sweep removes what killed processes have left. What is in use is locked.
func (h *home) sweep() {
	left, err := filepath.Glob(h.dir + "/" + prefix + "*")
	if err != nil {
		return
	}
	for _, dir := range left {
		if lock, err := lockGroup(dir); err == nil {
			_ = unix.Rmdir(dir) // refused where processes are
			_ = lock.Close()
		}
	}
}

// lockGroup opens a directory and locks it for as long as it is open.
func lockGroup(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close undoes what NewLimiter did.
func (l *Limiter) Close() error {
	if l == nil {
		return nil
	}
	var errs []error
	for _, undo := range slices.Backward(l.undo) {
		errs = append(errs, undo())
	}
	if l.tree >= 0 {
		errs = append(errs, unix.Close(l.tree))
	}
	return errors.Join(errs...)
}
