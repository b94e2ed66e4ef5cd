package filter

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data of linux/seccomp.h.
const (
	offsetNumber       = 0
	offsetArchitecture = 4
	offsetArguments    = 16 // of 8 bytes each
)

// code is part of a program. It ends in a return.
type code []unix.SockFilter

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func give(result uint32) code { return code{{Code: unix.BPF_RET | unix.BPF_K, K: result}} }

// branch returns code that goes on with yes where the accumulator compares to k, and
// with no elsewhere.
func branch(comparison uint16, k uint32, yes, no code) code {
	jump := code{{Code: unix.BPF_JMP | comparison | unix.BPF_K, K: k}}
	if len(yes) <= maxJump {
		jump[0].Jf = uint8(len(yes))
	} else {
		jump[0].Jt = 1
		jump = append(jump, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(yes))})
	}
	return slices.Concat(jump, yes, no)
}

// maxJump is how many instructions a jump on a condition can skip.
const maxJump = 255
