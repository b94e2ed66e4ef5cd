package chroot

import (
	"github.com/opencontainers/runc/libcontainer/configs"
)

// order is what the processes of a command in a chroot are told: gob, since
// arguments and variables need not be UTF-8.
type order struct {
	Root         string
	Args, Env    []string
	Dir          string
	UID, GID     uint32
	Groups       []int
	Umask        int
	Rlimits      []configs.Rlimit
	Capabilities []string
	Landlock     int   // version of the kernel's interface, 0 if there is none
	AnyFile      bool  // whether Landlock doesn't keep to the files of the root
	Protected    []int // processes that must not be signalled, where Landlock can't see to that
	Secrets      int   // how many files the guard wipes at the end
	Devices      deviceMaker
}

// A deviceMaker is who makes the device nodes of a command in a chroot.
type deviceMaker int

const (
	kernelMakes deviceMaker = iota // the harmless ones
	guardMakes
	outerMakes // a bob around this one
)
