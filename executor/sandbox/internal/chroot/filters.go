package chroot

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/emulate"
	"github.com/bobbuild/bob/executor/sandbox/internal/profile"
	"github.com/bobbuild/bob/executor/sandbox/landlock"
)

// leaving is a capability of Docker's with which a command leaves a chroot. The lack of it
// also keeps the command from tracing bob, which has it.
const leaving = "CAP_SYS_CHROOT"

// capabilitiesHere returns the capabilities of a command in a chroot.
func capabilitiesHere() ([]string, error) {
	own, err := profile.Own()
	if err != nil {
		return nil, err
	}
	for _, needed := range []string{"CAP_KILL", "CAP_SETGID", "CAP_SETUID", leaving} {
		if !slices.Contains(own, needed) {
			return nil, fmt.Errorf("run in a chroot: bob lacks %s: don't drop it when starting the container", needed)
		}
	}
	return slices.DeleteFunc(profile.WithoutNetwork(profile.Capabilities()), func(name string) bool {
		return name == leaving || !slices.Contains(own, name)
	}), nil
}

// intrusive are the system calls that reach into other processes. Landlock confines
// them.
var intrusive = [...]string{
	"kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace",
}

// filters returns the seccomp filters of the command.
func (o *order) filters() ([]*configs.Seccomp, error) {
	filter, err := profile.Filter(o.Capabilities)
	if err != nil {
		return nil, err
	}
	replaced := []string{"mknod", "mknodat", "prlimit64"}
	if o.Landlock == 0 {
		replaced = append(replaced, intrusive[:]...)
	}
	filter.Syscalls = slices.DeleteFunc(filter.Syscalls, func(c *configs.Syscall) bool {
		return slices.Contains(replaced, c.Name)
	})
	allow := func(name string, args ...*configs.Arg) {
		filter.Syscalls = append(filter.Syscalls, &configs.Syscall{Name: name, Action: configs.Allow, Args: args})
	}
	switch o.Devices {
	case guardMakes:
		filter = emulate.FilterDevices(filter)
	case outerMakes:
		allow("mknod")
		allow("mknodat")
	default:
		allowHarmless(allow)
	}
	// A limit that is set for bob would end it.
	allow("prlimit64", equalArg(0, 0))
	allow("prlimit64", equalArg(2, 0)) // that only asks
	if o.Landlock >= landlock.Scopes {
		return []*configs.Seccomp{filter}, nil
	}
	return []*configs.Seccomp{filter, o.signalFilter(filter.Architectures)}, nil
}

// allowHarmless allows to make files of all kinds, but of the devices only harmless ones.
func allowHarmless(allow func(name string, args ...*configs.Arg)) {
	for i, name := range []string{"mknod", "mknodat"} {
		mode := uint(i) + 1
		for _, kind := range []uint64{0, unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK} {
			allow(name, maskedArg(mode, unix.S_IFMT, kind))
		}
		for _, d := range devices {
			allow(name, maskedArg(mode, unix.S_IFMT, unix.S_IFCHR), maskedArg(mode+1, 1<<32-1, d.number))
		}
	}
}

// signalFilter refuses signals to the protected processes, and to everybody.
func (o *order) signalFilter(architectures []string) *configs.Seccomp {
	filter := &configs.Seccomp{DefaultAction: configs.Allow, Architectures: architectures}
	refused := uint(unix.EPERM)
	refuse := func(name string, args ...*configs.Arg) {
		filter.Syscalls = append(filter.Syscalls, &configs.Syscall{
			Name: name, Action: configs.Errno, ErrnoRet: &refused, Args: args,
		})
	}
	const low = 1<<32 - 1 // the kernel looks at no more of a process ID
	targets := []uint64{low}
	for _, pid := range o.Protected {
		targets = append(targets, uint64(pid), uint64(-pid)&low)
	}
	for _, t := range targets {
		for _, name := range []string{"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open"} {
			refuse(name, maskedArg(0, low, t))
		}
		refuse("tgkill", maskedArg(1, low, t))
		refuse("rt_tgsigqueueinfo", maskedArg(1, low, t))
		refuse("fcntl", maskedArg(1, low, unix.F_SETOWN), maskedArg(2, low, t))
	}
	refuse("fcntl", maskedArg(1, low, unix.F_SETOWN_EX))
	refuse("ioctl", maskedArg(1, low, fioSetOwn))
	refuse("ioctl", maskedArg(1, low, unix.SIOCSPGRP))
	refuse("getsockopt", maskedArg(1, low, unix.SOL_SOCKET), maskedArg(2, low, unix.SO_PEERPIDFD))
	return filter
}

// fioSetOwn is the ioctl FIOSETOWN of asm/sockios.h.
const fioSetOwn = 0x8901

// maskedArg is the condition that an argument of a system call has the value in the
// bits of the mask.
func maskedArg(index uint, mask, value uint64) *configs.Arg {
	return &configs.Arg{Index: index, Value: mask, ValueTwo: value, Op: configs.MaskEqualTo}
}

// equalArg is the condition that it is the value.
func equalArg(index uint, value uint64) *configs.Arg {
	return &configs.Arg{Index: index, Value: value, Op: configs.EqualTo}
}
