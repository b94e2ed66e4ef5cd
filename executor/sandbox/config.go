package sandbox

import (
	"os"
	"slices"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/entry"
	"github.com/bobbuild/bob/executor/sandbox/internal/profile"
	"github.com/bobbuild/bob/executor/sandbox/private"
)

// maskedPaths are hidden in the container, as in Docker.
var maskedPaths = [...]string{
	"/proc/acpi",
	"/proc/asound",
	"/proc/interrupts",
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/sys/devices/virtual/powercap",
	"/sys/firmware",
}

// readOnlyPaths refuse writes in the container, as in Docker.
var readOnlyPaths = [...]string{
	"/proc/bus",
	"/proc/fs",
	"/proc/irq",
	"/proc/sys",
	"/proc/sysrq-trigger",
}

// newConfig returns libcontainer's configuration of a container called id for
// the process with the mounts; own is the network of a Private one.
// root is absolute and free of symlinks.
func newConfig(p *Process, id, root string, mounts []*configs.Mount, own *private.Network, refused fallback) (*configs.Config, error) {
	confinement, err := confine(p, refused)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(p.Ulimits)
	if err != nil {
		return nil, err
	}
	umask := uint32(entry.Umask)
	config := &configs.Config{
		Rootfs:          root,
		RootPropagation: unix.MS_PRIVATE | unix.MS_REC,
		NoPivotRoot:     refused&movedRoot != 0,
		Mounts:          mounts,
		Hostname:        p.hostname(),
		Namespaces: configs.Namespaces{
			{Type: configs.NEWNS}, {Type: configs.NEWPID}, {Type: configs.NEWIPC}, {Type: configs.NEWUTS},
		},
		Capabilities:  confinement.capabilities,
		Rlimits:       limits,
		Umask:         &umask,
		MaskPaths:     confinement.masked,
		ReadonlyPaths: confinement.readOnly,
		// Inside a user namespace joining a new session keyring counts
		// against the quota of the user outside, and container engines
		// refuse keyctl(2) altogether.
		NoNewKeyring: true,
		// A Limiter makes cgroups, libcontainer doesn't: entering made the cgroup file systems
		// read-only, and a Rootless one without a Path may fail to be made.
		RootlessCgroups: true,
		Cgroups: &cgroups.Cgroup{
			Name: id, Parent: "bob", Rootless: true, Resources: &cgroups.Resources{},
		},
	}
	if _, err := os.Stat("/proc/self/ns/cgroup"); err == nil {
		config.Namespaces = append(config.Namespaces, configs.Namespace{Type: configs.NEWCGROUP})
	}
	p.Network.apply(config, own)
	if p.nested(refused) {
		if err := nestUser(config); err != nil {
			return nil, err
		}
	}
	return config, nil
}

// confinement is what keeps a command from the rest of the machine, beside its seccomp
// filter.
type confinement struct {
	capabilities     *configs.Capabilities
	masked, readOnly []string
}

// confine returns the confinement of the process.
func confine(p *Process, refused fallback) (*confinement, error) {
	if p.Insecure {
		all, err := profile.Own()
		if err != nil {
			return nil, err
		}
		// The ambient ones are what a command of another user than root keeps.
		return &confinement{capabilities: &configs.Capabilities{
			Bounding: all, Permitted: all, Effective: all, Inheritable: all, Ambient: all,
		}}, nil
	}
	return &confinement{
		capabilities: profile.Sets(p.capabilities(refused), p.UID),
		masked:       slices.Clone(maskedPaths[:]),
		readOnly:     slices.Clone(readOnlyPaths[:]),
	}, nil
}

// capabilities returns the names of the capabilities of a process that is not Insecure.
func (p *Process) capabilities(refused fallback) []string {
	if p.Network == Host && !p.nested(refused) {
		return profile.WithoutNetwork(profile.Capabilities())
	}
	return profile.Capabilities()
}

// apply gives the container of config the network; own is what a Private process has.
func (n Network) apply(config *configs.Config, own *private.Network) {
	switch n {
	case None:
		config.Namespaces = append(config.Namespaces, configs.Namespace{Type: configs.NEWNET})
		config.Networks = []*configs.Network{{Type: "loopback"}}
	case Private:
		config.Namespaces = append(config.Namespaces, configs.Namespace{Type: configs.NEWNET, Path: own.Path})
	case Host:
	}
}
