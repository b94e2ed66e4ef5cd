package filter

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// An architecture is a set of system calls.
type architecture struct {
	name  string // in libseccomp
	audit uint32 // AUDIT_ARCH_… of linux/audit.h
	wide  bool   // whether arguments have 64 bits
}

// architectures are those that bob runs on, and what runs on these. All are little-endian.
var architectures = []architecture{
	{amd64, unix.AUDIT_ARCH_X86_64, true},
	{"x86", unix.AUDIT_ARCH_I386, false},
	{"arm64", unix.AUDIT_ARCH_AARCH64, true},
	{"arm", unix.AUDIT_ARCH_ARM, false},
}

const (
	amd64 = "amd64"
	// firstX32 is the first number of a call of the x32 ABI, which has the architecture of
	// amd64 (__X32_SYSCALL_BIT of asm/unistd.h).
	firstX32 = 0x40000000
	// firstPrivateARM is the first of those numbers of ARM that don't grow with the kernel
	// (__ARM_NR_BASE of asm/unistd.h).
	firstPrivateARM = 0xf0000
)

// compile returns the program of a filter.
func compile(config *configs.Seccomp) (code, error) {
	if errWithout != nil {
		return nil, errWithout
	}
	otherwise, err := result(config.DefaultAction, config.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	wanted := append([]string{runtime.GOARCH}, config.Architectures...)
	program := give(killThread)
	for _, a := range slices.Backward(architectures) {
		if !slices.Contains(wanted, a.name) {
			continue
		}
		body, err := a.compile(config, otherwise)
		if err != nil {
			return nil, err
		}
		program = branch(unix.BPF_JEQ, a.audit, body, program)
		wanted = slices.DeleteFunc(wanted, func(name string) bool { return name == a.name })
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("calls of architecture %s can't be filtered", wanted[0])
	}
	return slices.Concat(code{load(offsetArchitecture)}, program), nil
}

// compile returns the code for the calls of a, where otherwise is the result for calls
// without a rule.
func (a architecture) compile(config *configs.Seccomp, otherwise uint32) (code, error) {
	rules := make(map[uint32][]*configs.Syscall)
	last := uint32(0) // of the calls that have a name in config
	for _, rule := range config.Syscalls {
		n, known := number(rule.Name, a.name)
		if !known {
			continue
		}
		if n < firstPrivateARM {
			last = max(last, n)
		}
		rules[n] = append(rules[n], rule)
	}
	unknown := otherwise
	if !lets(otherwise) {
		unknown = failing(unix.ENOSYS)
	}
	spans := []span{{0, give(otherwise)}, {last + 1, give(unknown)}}
	if a.name == amd64 {
		spans = append(spans, span{firstX32, give(killThread)})
	}
	for _, n := range slices.Sorted(maps.Keys(rules)) {
		body, err := a.apply(rules[n], otherwise)
		if err != nil {
			return nil, err
		}
		spans = set(spans, n, body)
	}
	return slices.Concat(code{load(offsetNumber)}, search(join(spans))), nil
}

// apply returns the code for one call that has the rules, of which the first counts whose
// conditions are met.
func (a architecture) apply(rules []*configs.Syscall, otherwise uint32) (code, error) {
	program := give(otherwise)
	for _, rule := range slices.Backward(rules) {
		r, err := result(rule.Action, rule.ErrnoRet)
		if err != nil {
			return nil, err
		}
		tests, err := tests(rule, a.wide)
		if err != nil {
			return nil, fmt.Errorf("call %s: %w", rule.Name, err)
		}
		if len(tests) == 0 {
			program = nil // no other rule counts
		}
		program = slices.Concat(tests, give(r), program)
	}
	return program, nil
}

// A span is the calls from a number to the first of the next span.
type span struct {
	first uint32
	body  code
}

// set gives the call with a number a span of its own. The spans are sorted.
func set(spans []span, number uint32, body code) []span {
	i, found := slices.BinarySearchFunc(spans, number, func(s span, n uint32) int { return cmp.Compare(s.first, n) })
	if !found {
		spans = slices.Insert(spans, i, span{number, spans[i-1].body})
	}
	if i+1 == len(spans) || spans[i+1].first != number+1 {
		spans = slices.Insert(spans, i+1, span{number + 1, spans[i].body})
	}
	spans[i].body = body
	return spans
}

// join makes one span of neighbors with the same code.
func join(spans []span) []span {
	return slices.CompactFunc(spans, func(a, b span) bool { return slices.Equal(a.body, b.body) })
}

// search returns code that finds the span of the number in the accumulator.
func search(spans []span) code {
	if len(spans) == 1 {
		return spans[0].body
	}
	middle := len(spans) / 2
	return branch(unix.BPF_JGE, spans[middle].first, search(spans[middle:]), search(spans[:middle]))
}
