package emulate

import (
	"github.com/opencontainers/runc/libcontainer/configs"
)

// call is a system call that the emulation answers.
type call struct {
	name   string
	number int32
	handle handler
	// arch is the architecture of the programs that make the call, 0 for bob's own.
	arch uint32
	// only, if set, says for which values of an argument: the others are the
	// kernel's.
	only *condition
}

// condition is that one of the bits of an argument is set or, if equal is set, that
// the argument has that value.
type condition struct {
	argument uint
	bit      uint64
	equal    uint64
}

// rules returns what the filter says of the call.
func (c call) rules() []*configs.Syscall {
	notify := &configs.Syscall{Name: c.name, Action: configs.Notify}
	if c.only == nil {
		return []*configs.Syscall{notify}
	}
	allow := &configs.Syscall{Name: c.name, Action: configs.Allow}
	index := c.only.argument
	if c.only.bit != 0 {
		notify.Args = []*configs.Arg{{Index: index, Value: c.only.bit, ValueTwo: c.only.bit, Op: configs.MaskEqualTo}}
		allow.Args = []*configs.Arg{{Index: index, Value: c.only.bit, ValueTwo: 0, Op: configs.MaskEqualTo}}
	} else {
		notify.Args = []*configs.Arg{{Index: index, Value: c.only.equal, Op: configs.EqualTo}}
		allow.Args = []*configs.Arg{{Index: index, Value: c.only.equal, Op: configs.NotEqualTo}}
	}
	return []*configs.Syscall{notify, allow}
}
