//go:build cgo && seccomp

package filter_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	libseccomp "github.com/seccomp/libseccomp-golang"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/filter"
	"github.com/bobbuild/bob/executor/sandbox/internal/profile"
)

// A call is a system call as a filter sees it.
type call struct {
	architecture, number uint32
	args                 [6]uint64
}

// encode returns the call for the machine of package bpf, which takes words of network
// byte order.
func (c call) encode() []byte {
	data := binary.BigEndian.AppendUint32(nil, c.number)
	data = binary.BigEndian.AppendUint32(data, c.architecture)
	data = append(data, make([]byte, 8)...) // the instruction pointer
	for _, a := range c.args {
		data = binary.BigEndian.AppendUint32(data, uint32(a))
		data = binary.BigEndian.AppendUint32(data, uint32(a>>32))
	}
	return data
}

// machine returns a machine that runs the program.
func machine(t *testing.T, program []bpf.RawInstruction) *bpf.VM {
	t.Helper()
	instructions, ok := bpf.Disassemble(program)
	if !ok {
		t.Fatal("not all of the program is known to package bpf")
	}
	vm, err := bpf.NewVM(instructions)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func run(t *testing.T, vm *bpf.VM, c call) uint32 {
	t.Helper()
	result, err := vm.Run(c.encode())
	if err != nil {
		t.Fatal(err)
	}
	return uint32(result)
}

// byLibseccomp returns the program that libseccomp makes of a filter, told of it in the
// way of libcontainer.
func byLibseccomp(t *testing.T, config *configs.Seccomp) []bpf.RawInstruction {
	t.Helper()
	f, err := libseccomp.NewFilter(action(config.DefaultAction, config.DefaultErrnoRet))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	for _, name := range config.Architectures {
		arch, err := libseccomp.GetArchFromString(name)
		if err == nil {
			err = f.AddArch(arch)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, rule := range config.Syscalls {
		number, err := libseccomp.GetSyscallFromName(rule.Name)
		if err != nil || action(rule.Action, rule.ErrnoRet) == action(config.DefaultAction, config.DefaultErrnoRet) {
			continue
		}
		var conditions []libseccomp.ScmpCondition
		for _, arg := range rule.Args {
			c, err := libseccomp.MakeCondition(arg.Index, operators[arg.Op], arg.Value, arg.ValueTwo)
			if err != nil {
				t.Fatal(err)
			}
			conditions = append(conditions, c)
		}
		if err := f.AddRuleConditional(number, action(rule.Action, rule.ErrnoRet), conditions); err != nil {
			t.Fatalf("%s: %v", rule.Name, err)
		}
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = read.Close() }()
	exported := make(chan error, 1)
	go func() {
		err := f.ExportBPF(write)
		_ = write.Close()
		exported <- err
	}()
	data, err := io.ReadAll(read)
	if err := <-exported; err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return instructions(data)
}

func instructions(data []byte) (program []bpf.RawInstruction) {
	for i := range slices.Chunk(data, 8) {
		program = append(program, bpf.RawInstruction{
			Op: binary.NativeEndian.Uint16(i), Jt: i[2], Jf: i[3], K: binary.NativeEndian.Uint32(i[4:]),
		})
	}
	return program
}

var operators = map[configs.Operator]libseccomp.ScmpCompareOp{
	configs.EqualTo: libseccomp.CompareEqual, configs.NotEqualTo: libseccomp.CompareNotEqual,
	configs.GreaterThan: libseccomp.CompareGreater, configs.GreaterThanOrEqualTo: libseccomp.CompareGreaterEqual,
	configs.LessThan: libseccomp.CompareLess, configs.LessThanOrEqualTo: libseccomp.CompareLessOrEqual,
	configs.MaskEqualTo: libseccomp.CompareMaskedEqual,
}

func action(a configs.Action, errno *uint) libseccomp.ScmpAction {
	switch a {
	case configs.Allow:
		return libseccomp.ActAllow
	case configs.Notify:
		return libseccomp.ActNotify
	case configs.Errno:
		if errno != nil {
			return libseccomp.ActErrno.SetReturnCode(int16(*errno))
		}
		return libseccomp.ActErrno.SetReturnCode(int16(unix.EPERM))
	default:
		panic(fmt.Sprintf("action %d", a))
	}
}

// compare compares what Compile and libseccomp make of a filter, at all calls with
// arguments at and beside the values that the rules compare with. The ones that are
// newer than all in the filter are left out: libseccomp gives them the default.
func compare(t *testing.T, config *configs.Seccomp) {
	t.Helper()
	compiled, err := filter.Compile(config)
	if err != nil {
		t.Fatal(err)
	}
	native, err := libseccomp.GetNativeArch()
	if err != nil {
		t.Fatal(err)
	}
	got, want := machine(t, filter.Program(compiled)), machine(t, byLibseccomp(t, config))
	values := []uint64{0, 1, 1<<32 - 1, 1 << 32, 1<<64 - 1}
	for _, rule := range config.Syscalls {
		for _, arg := range rule.Args {
			for _, v := range []uint64{arg.Value, arg.ValueTwo} {
				values = append(values, v-1, v, v+1, v|1<<40, v^1<<33)
			}
		}
	}
	slices.Sort(values)
	values = slices.Compact(values)
	random := rand.New(rand.NewPCG(1, 2))
	for _, a := range []struct {
		audit uint32
		name  libseccomp.ScmpArch
	}{
		{unix.AUDIT_ARCH_X86_64, libseccomp.ArchAMD64},
		{unix.AUDIT_ARCH_I386, libseccomp.ArchX86},
		{unix.AUDIT_ARCH_AARCH64, libseccomp.ArchARM64},
		{unix.AUDIT_ARCH_ARM, libseccomp.ArchARM},
		{unix.AUDIT_ARCH_S390X, libseccomp.ArchS390X},
	} {
		last := libseccomp.ScmpSyscall(0)
		for _, rule := range config.Syscalls {
			if n, err := libseccomp.GetSyscallFromNameByArch(rule.Name, a.name); err == nil && n < 0xf0000 {
				last = max(last, n)
			}
		}
		numbers := []uint32{0x40000000, 0x40000001, 0x7fffffff, 0x80000000, 0xfffffffe}
		for n := range uint32(last) + 1 {
			numbers = append(numbers, n)
		}
		for _, n := range numbers {
			if n > uint32(last) && a.audit != unix.AUDIT_ARCH_X86_64 {
				continue
			}
			for range 60 {
				c := call{architecture: a.audit, number: n}
				for i := range c.args {
					c.args[i] = values[random.IntN(len(values))]
				}
				if g, w := run(t, got, c), run(t, want, c); g != w {
					t.Fatalf("call %+v: %#x, by libseccomp %#x", c, g, w)
				}
			}
		}
		newer := call{architecture: a.audit, number: uint32(last) + 1}
		compiledIn := a.name == native || slices.Contains(config.Architectures, strings.ToLower(a.name.String()))
		if g := run(t, got, newer); compiledIn && config.DefaultAction != configs.Allow && g != unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS) {
			t.Errorf("newer call %d of %s: %#x, want ENOSYS", newer.number, a.name, g)
		}
	}
}

// TestDockersProfile compares the filters that commands have with those of libseccomp.
func TestDockersProfile(t *testing.T) {
	t.Parallel()
	for name, capabilities := range map[string][]string{
		"no capabilities": nil, "default": profile.Capabilities(), "more": append(profile.Capabilities(), "CAP_SYS_ADMIN", "CAP_BPF", "CAP_SYSLOG"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, err := profile.Filter(capabilities)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, config)
		})
	}
}

// TestOperators compares filters with conditions of all kinds with those of libseccomp.
func TestOperators(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	values := []uint64{0, 1, 7, 1<<32 - 1, 1 << 32, 1<<32 + 7, 1 << 63, 1<<64 - 1}
	errno := uint(unix.EXDEV)
	for range 40 {
		config := &configs.Seccomp{DefaultAction: configs.Allow, Architectures: []string{"amd64", "x86", "arm64", "arm"}}
		if random.IntN(2) == 0 {
			config.DefaultAction = configs.Errno
		}
		for i, name := range []string{"kill", "ioctl", "personality", "mkdirat", "close"} {
			rule := configs.Syscall{Name: name, Action: configs.Errno, ErrnoRet: &errno}
			if i%2 == 0 && config.DefaultAction != configs.Allow {
				rule.Action, rule.ErrnoRet = configs.Allow, nil
			}
			for n := range 1 + random.IntN(3) {
				next := rule
				arg := &configs.Arg{
					Index: uint(n), Value: values[random.IntN(len(values))],
					Op: []configs.Operator{
						configs.EqualTo, configs.NotEqualTo, configs.GreaterThan, configs.GreaterThanOrEqualTo,
						configs.LessThan, configs.LessThanOrEqualTo, configs.MaskEqualTo,
					}[random.IntN(7)],
				}
				if arg.Op == configs.MaskEqualTo {
					arg.Value |= 1
					arg.ValueTwo = arg.Value & values[random.IntN(len(values))]
				}
				next.Args = append(slices.Clone(rule.Args), arg)
				if n == 2 { // two conditions at once
					next.Args = append(next.Args, &configs.Arg{Index: 5, Value: 7, Op: configs.EqualTo})
				}
				config.Syscalls = append(config.Syscalls, &next)
			}
		}
		compare(t, config)
	}
}

// TestOrder has a rule count before the ones behind it.
func TestOrder(t *testing.T) {
	t.Parallel()
	compiled, err := filter.Compile(&configs.Seccomp{DefaultAction: configs.Errno, Architectures: []string{"amd64"}, Syscalls: []*configs.Syscall{
		{Name: "read", Action: configs.Notify, Args: []*configs.Arg{{Index: 0, Value: 7, Op: configs.EqualTo}}},
		{Name: "read", Action: configs.Allow},
		{Name: "read", Action: configs.Kill, Args: []*configs.Arg{{Index: 0, Value: 8, Op: configs.EqualTo}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, filter.Program(compiled))
	for first, want := range map[uint64]uint32{7: unix.SECCOMP_RET_USER_NOTIF, 8: unix.SECCOMP_RET_ALLOW, 9: unix.SECCOMP_RET_ALLOW} {
		c := call{architecture: unix.AUDIT_ARCH_X86_64, number: unix.SYS_READ, args: [6]uint64{first}}
		if got := run(t, vm, c); got != want {
			t.Errorf("read from %d: %#x, want %#x", first, got, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	equal := func(index uint) []*configs.Arg { return []*configs.Arg{{Index: index}} }
	for want, config := range map[string]*configs.Seccomp{
		"architecture mips": {DefaultAction: configs.Allow, Architectures: []string{"mips"}},
		"unknown flag":      {DefaultAction: configs.Allow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_X"}},
		"argument 6":        {DefaultAction: configs.Allow, Syscalls: []*configs.Syscall{{Name: "read", Action: configs.Errno, Args: equal(6)}}},
		"not within mask": {DefaultAction: configs.Allow, Syscalls: []*configs.Syscall{
			{Name: "read", Action: configs.Errno, Args: []*configs.Arg{{Value: 1, ValueTwo: 2, Op: configs.MaskEqualTo}}},
		}},
	} {
		if _, err := filter.Compile(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: want an error about %s", err, want)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	config, err := profile.Filter(profile.Capabilities())
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := filter.Compile(config); err != nil {
			b.Fatal(err)
		}
	}
}
