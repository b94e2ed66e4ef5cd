package filter

import (
	"golang.org/x/net/bpf"
)

// Program returns the program of f.
func Program(f *Filter) (program []bpf.RawInstruction) {
	for _, i := range f.program {
		program = append(program, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	return program
}
