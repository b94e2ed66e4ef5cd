package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/executor/cgroup"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/containerd/platforms"
	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// runFlags say how steps run: what a RUN reaches, may use and may do, and how many steps
// run for how long.
type runFlags struct {
	network                             cli.Text
	addHosts, ulimits, emulators, allow cli.List
	shm                                 string
	memory                              cli.Text
	cpus                                float64
	pids                                int64
	jobs                                int
	timeout, stepTimeout                time.Duration
}

func (f *runFlags) register(fs *flag.FlagSet) {
	fs.Var(&f.network, "network", "network `mode` of RUN, default, host, none, or private: user-mode, without the host's addresses; default is host")
	fs.Var(&f.addHosts, "add-host", "`name:address` for /etc/hosts in RUN; repeatable")
	fs.Var(&f.ulimits, "ulimit", "`name=soft[:hard]` limit for RUN; repeatable")
	fs.Var(&f.allow, "allow", "`entitlement` that RUN may use: security.insecure, network.host; repeatable")
	fs.Var(&f.emulators, "emulator", "`arch=path` of a static emulator for RUN of another platform, as arm64=/usr/bin/qemu-aarch64-static; root needs --rootless for it; repeatable")
	fs.StringVar(&f.shm, "shm-size", "", "`size` of /dev/shm in RUN, as 128m (default 64m)")
	fs.Var(&f.memory, "memory", "`size` of the memory that a RUN may use, as 512m or 2g (default: no limit)")
	fs.Float64Var(&f.cpus, "cpus", 0, "`number` of CPUs that a RUN may use, as 1.5 (default: no limit)")
	fs.Int64Var(&f.pids, "pids-limit", 0, "`number` of processes and threads that a RUN may have (default: no limit)")
	fs.IntVar(&f.jobs, "jobs", 0, "`number` of steps that may run at once (default: eight per CPU if memory allows)")
	fs.DurationVar(&f.timeout, "timeout", 0, "`duration` after which the build is ended, as 90s or 1h30m (default: none)")
	fs.DurationVar(&f.stepTimeout, "step-timeout", 0, "`duration` after which a step is ended, and the build with it (default: none)")
}

func (f *runFlags) apply(o *options) error {
	o.build.Jobs, o.build.StepTimeout = f.jobs, f.stepTimeout
	return errors.Join(
		f.checkTimes(), f.applyNetwork(o), f.applyHosts(o), f.applyLimits(o), f.applyAllow(o), f.applyEmulators(o),
	)
}

func (f *runFlags) applyNetwork(o *options) error {
	switch f.network {
	case "", "default", "host":
		o.build.Network = sandbox.Host
	case "none":
		o.build.Network = sandbox.None
	case "private":
		o.build.Network = sandbox.Private
	default:
		return cli.Wrong("network", f.network, "want default, host, none or private")
	}
	return nil
}

func (f *runFlags) applyHosts(o *options) error {
	for _, h := range f.addHosts.Values {
		host, err := extraHost(h)
		if err != nil {
			return cli.About("add-host", h, err)
		}
		o.build.ExtraHosts = append(o.build.ExtraHosts, host)
	}
	return nil
}

// applyLimits sets what a RUN may use.
func (f *runFlags) applyLimits(o *options) error {
	var wrong []error
	if f.shm != "" {
		n, err := units.RAMInBytes(f.shm)
		if err != nil || n <= 0 {
			wrong = append(wrong, cli.Wrong("shm-size", f.shm, "want a size as 64m or 1g"))
		}
		o.build.ShmSize = n
	}
	for _, u := range f.ulimits.Values {
		l, err := units.ParseUlimit(u)
		if err != nil {
			wrong = append(wrong, cli.Wrong("ulimit", u, "%v", err))
			continue
		}
		o.build.Ulimits = append(o.build.Ulimits, sandbox.Ulimit{Name: l.Name, Soft: uint64(l.Soft), Hard: uint64(l.Hard)})
	}
	var err error
	o.limits, err = f.runLimits()
	return errors.Join(append(wrong, err)...)
}

func (f *runFlags) applyEmulators(o *options) error {
	o.emulators = make(map[string]string)
	for _, v := range f.emulators.Values {
		arch, path, err := emulator(v)
		if err != nil {
			return cli.Wrong("emulator", v, "%v", err)
		}
		o.emulators[arch] = path
	}
	return nil
}

// emulator parses a value of --emulator. The architecture is written as in a platform,
// with or without an operating system and a variant.
func emulator(value string) (arch, path string, err error) {
	arch, path, ok := strings.Cut(value, "=")
	if !ok || arch == "" || path == "" {
		return "", "", errors.New("want an architecture and a path, as arm64=/usr/bin/qemu-aarch64-static")
	}
	p, err := platforms.Parse(arch)
	if err != nil {
		return "", "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || unix.Access(path, unix.X_OK) != nil) {
		err = fmt.Errorf("this user can't execute %s", path)
	}
	return p.Architecture, path, err
}

// leastMemory is what starting a container takes.
const leastMemory = 6 << 20

// runLimits returns the limits of RUN. As in docker, 0 and -1 stand for no limit.
func (f *runFlags) runLimits() (cgroup.Limits, error) {
	l := cgroup.Limits{CPUs: f.cpus, PIDs: max(0, f.pids)}
	var wrong []error
	if f.memory != "" {
		var err error
		if l.Memory, err = units.RAMInBytes(string(f.memory)); err != nil || l.Memory > 0 && l.Memory < leastMemory {
			wrong = append(wrong, cli.Wrong("memory", f.memory, "want a size as 512m or 2g, of 6m at least"))
		}
	}
	if !(l.CPUs == 0 || l.CPUs >= 0.01 && l.CPUs <= 1<<20) {
		wrong = append(wrong, cli.Wrong("cpus", f.cpus, "want a number as 1.5, of 0.01 at least"))
	}
	if f.pids < -1 {
		wrong = append(wrong, cli.Wrong("pids-limit", f.pids, "want a positive number"))
	}
	return l, errors.Join(wrong...)
}

// extraHost parses the argument of --add-host: name:address or name=address,
// an IPv6 address with or without brackets.
func extraHost(s string) (string, error) {
	name, addr, ok := strings.Cut(s, "=")
	if !ok {
		name, addr, ok = strings.Cut(s, ":")
	}
	ip := strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
	if !ok || name == "" || net.ParseIP(ip) == nil {
		return "", cli.Errorf("--add-host %s: want name:address with a numeric address", s)
	}
	return name + ":" + ip, nil
}

// applyAllow sets what a RUN may ask for.
func (f *runFlags) applyAllow(o *options) error {
	for _, name := range f.allow.Values {
		switch name {
		case "security.insecure":
			o.build.AllowInsecure = true
		case "network.host":
			o.build.AllowHostNetwork = true
		default:
			return cli.Wrong("allow", name, "unknown entitlement; want security.insecure or network.host")
		}
	}
	return nil
}

// checkTimes checks the flags that are numbers of steps and of time.
func (f *runFlags) checkTimes() error {
	var wrong []error
	if f.jobs < 0 {
		wrong = append(wrong, cli.Wrong("jobs", f.jobs, "a negative number"))
	}
	for _, t := range []struct {
		flag  string
		value time.Duration
	}{{"timeout", f.timeout}, {"step-timeout", f.stepTimeout}} {
		if t.value < 0 {
			wrong = append(wrong, cli.About(t.flag, "", cli.Errorf("--%s %s: want a duration as 90s or 1h30m", t.flag, t.value)))
		}
	}
	return errors.Join(wrong...)
}
