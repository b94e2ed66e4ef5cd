package filter

import (
	"fmt"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

// A target is where a test goes on.
type target int

const (
	next target = iota // the test behind it
	met                // the next condition
	miss               // behind the rule
)

// A test is a step of a condition: an instruction and, where that is a jump, what follows.
type test struct {
	instruction unix.SockFilter
	yes, no     target
}

func plain(instruction unix.SockFilter) test { return test{instruction: instruction} }

func jump(comparison uint16, k uint32, yes, no target) test {
	return test{unix.SockFilter{Code: unix.BPF_JMP | comparison | unix.BPF_K, K: k}, yes, no}
}

// tests returns code that skips one instruction behind it unless all conditions of the
// rule are met. wide says that arguments have 64 bits. There is no code for a rule without
// conditions.
func tests(rule *configs.Syscall, wide bool) (code, error) {
	var conditions [][]test
	total := 0
	for _, arg := range rule.Args {
		c, err := condition(arg, wide)
		if err != nil {
			return nil, err
		}
		conditions = append(conditions, c)
		total += len(c)
	}
	var program code
	for _, c := range conditions {
		end := len(program) + len(c)
		for _, t := range c {
			distances := map[target]int{next: 0, met: end - len(program) - 1, miss: total - len(program)}
			t.instruction.Jt, t.instruction.Jf = uint8(distances[t.yes]), uint8(distances[t.no])
			program = append(program, t.instruction)
		}
	}
	return program, nil
}

// condition returns the tests of a condition on one argument of a call. Both halves of an
// argument count where arguments have 64 bits, else the lower one.
func condition(arg *configs.Arg, wide bool) ([]test, error) {
	const arguments = 6
	if arg.Index >= arguments {
		return nil, fmt.Errorf("condition on argument %d: a call has %d", arg.Index, arguments)
	}
	lower := uint32(offsetArguments + 8*arg.Index)
	var tests []test
	if wide {
		tests = upperTests(arg.Op, lower+4, uint32(arg.Value>>32), uint32(arg.ValueTwo>>32))
	}
	tests = append(tests, lowerTests(arg.Op, lower, uint32(arg.Value), uint32(arg.ValueTwo))...)
	switch {
	case len(tests) == 0 && arg.Op == configs.MaskEqualTo:
		return nil, fmt.Errorf("condition on argument %d has an empty mask", arg.Index)
	case len(tests) == 0:
		return nil, fmt.Errorf("condition on argument %d: unknown operator %d", arg.Index, arg.Op)
	case arg.Op == configs.MaskEqualTo && arg.ValueTwo&^arg.Value != 0:
		return nil, fmt.Errorf("condition on argument %d: value %#x is not within mask %#x", arg.Index, arg.ValueTwo, arg.Value)
	}
	return tests, nil
}

// upperTests returns the tests of the upper half of an argument, which leave the decision
// to those of the lower half where it is equal.
func upperTests(op configs.Operator, offset, value, masked uint32) []test {
	switch op {
	case configs.EqualTo:
		return []test{plain(load(offset)), jump(unix.BPF_JEQ, value, next, miss)}
	case configs.NotEqualTo:
		return []test{plain(load(offset)), jump(unix.BPF_JEQ, value, next, met)}
	case configs.GreaterThan, configs.GreaterThanOrEqualTo:
		return []test{plain(load(offset)), jump(unix.BPF_JGT, value, met, next), jump(unix.BPF_JEQ, value, next, miss)}
	case configs.LessThan, configs.LessThanOrEqualTo:
		return []test{plain(load(offset)), jump(unix.BPF_JGT, value, miss, next), jump(unix.BPF_JEQ, value, next, met)}
	case configs.MaskEqualTo:
		return maskTests(offset, value, masked)
	}
	return nil
}

// lowerTests returns the tests of the lower half of an argument.
func lowerTests(op configs.Operator, offset, value, masked uint32) []test {
	switch op {
	case configs.EqualTo:
		return []test{plain(load(offset)), jump(unix.BPF_JEQ, value, next, miss)}
	case configs.NotEqualTo:
		return []test{plain(load(offset)), jump(unix.BPF_JEQ, value, miss, next)}
	case configs.GreaterThan:
		return []test{plain(load(offset)), jump(unix.BPF_JGT, value, next, miss)}
	case configs.GreaterThanOrEqualTo:
		return []test{plain(load(offset)), jump(unix.BPF_JGE, value, next, miss)}
	case configs.LessThan:
		return []test{plain(load(offset)), jump(unix.BPF_JGE, value, miss, next)}
	case configs.LessThanOrEqualTo:
		return []test{plain(load(offset)), jump(unix.BPF_JGT, value, miss, next)}
	case configs.MaskEqualTo:
		return maskTests(offset, value, masked)
	}
	return nil
}

// maskTests returns the tests that half of an argument has a value in the bits of the mask.
func maskTests(offset, mask, value uint32) []test {
	if mask == 0 {
		return nil
	}
	and := unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask}
	return []test{plain(load(offset)), plain(and), jump(unix.BPF_JEQ, value, next, miss)}
}
