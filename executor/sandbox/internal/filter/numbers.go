//go:build cgo && seccomp

package filter

import (
	"sync"

	libseccomp "github.com/seccomp/libseccomp-golang"
)

// errWithout is nil, since this binary has the numbers of calls.
var errWithout error

// number returns the number of a call in an architecture, named as in libseccomp, if it
// has such a call.
func number(name, architecture string) (n uint32, known bool) {
	arch, err := libseccomp.GetArchFromString(architecture)
	if err != nil {
		return 0, false
	}
	found, err := libseccomp.GetSyscallFromNameByArch(name, arch)
	switch {
	case err != nil:
		return 0, false
	case found >= 0:
		return uint32(found), true
	case arch == libseccomp.ArchX86:
		n, known = socketCalls()[name]
	}
	return n, known // libseccomp gives calls of other architectures negative numbers
}

// socketCalls returns the numbers of those calls of x86 that it also has as parts of
// socketcall(2), and whose names libseccomp gives numbers of its own for that reason.
var socketCalls = sync.OnceValue(func() map[string]uint32 {
	numbers := make(map[string]uint32)
	for n := range uint32(512) {
		name, err := libseccomp.ScmpSyscall(n).GetNameByArch(libseccomp.ArchX86)
		if err != nil {
			continue
		}
		if own, err := libseccomp.GetSyscallFromNameByArch(name, libseccomp.ArchX86); err == nil && own < 0 {
			numbers[name] = n
		}
	}
	return numbers
})
