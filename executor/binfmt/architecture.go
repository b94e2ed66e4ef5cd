package binfmt

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An architecture is the architecture of an image platform, by Go's name for it. Nothing in
// a program's header tells its variants apart, such as v6 and v7 of arm.
type architecture struct {
	name    string
	qemu    string // QEMU's name for it
	class   elf.Class
	data    elf.Data
	machine elf.Machine
	flags   uint32 // e_flags, by which some tell their ABIs apart
	// exit is a program that exits with the number of its arguments as its status.
	exit string
}

// architectures returns those that images are made for, the most common first.
func architectures() []architecture {
	return []architecture{
		{"amd64", "x86_64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_X86_64, 0, "" +
			"\x8b\x3c\x24" + // mov (%rsp), %edi
			"\xb8\x3c\x00\x00\x00" + // mov $60, %eax
			"\x0f\x05"}, // syscall
		{"arm64", "aarch64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_AARCH64, 0, "" +
			"\xe0\x03\x40\xf9" + // ldr x0, [sp]
			"\xa8\x0b\x80\xd2" + // mov x8, #93
			"\x01\x00\x00\xd4"}, // svc #0
		{"386", "i386", elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_386, 0, "" +
			"\x8b\x1c\x24" + // mov (%esp), %ebx
			"\xb8\x01\x00\x00\x00" + // mov $1, %eax
			"\xcd\x80"}, // int $0x80
		{"arm", "arm", elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_ARM, 0x05000000 /* EABI 5 */, "" +
			"\x00\x00\x9d\xe5" + // ldr r0, [sp]
			"\x01\x70\xa0\xe3" + // mov r7, #1
			"\x00\x00\x00\xef"}, // svc #0
		{"loong64", "loongarch64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_LOONGARCH, 0x43 /* LP64D */, "" +
			"\x64\x00\xc0\x28" + // ld.d $a0, $sp, 0
			"\x0b\x74\x81\x03" + // ori $a7, $zero, 93
			"\x00\x00\x2b\x00"}, // syscall 0
		{"mips", "mips", elf.ELFCLASS32, elf.ELFDATA2MSB, elf.EM_MIPS, 0x50001000 /* MIPS32, o32 */, "" +
			"\x8f\xa4\x00\x00" + // lw $a0, 0($sp)
			"\x24\x02\x0f\xa1" + // li $v0, 4001
			"\x00\x00\x00\x0c"}, // syscall
		{"mipsle", "mipsel", elf.ELFCLASS32, elf.ELFDATA2LSB, elf.EM_MIPS, 0x50001000, "" +
			"\x00\x00\xa4\x8f" + "\xa1\x0f\x02\x24" + "\x0c\x00\x00\x00"},
		{"mips64", "mips64", elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_MIPS, 0x60000000 /* MIPS64 */, "" +
			"\xdf\xa4\x00\x00" + // ld $a0, 0($sp)
			"\x24\x02\x13\xc2" + // li $v0, 5058
			"\x00\x00\x00\x0c"}, // syscall
		{"mips64le", "mips64el", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_MIPS, 0x60000000, "" +
			"\x00\x00\xa4\xdf" + "\xc2\x13\x02\x24" + "\x0c\x00\x00\x00"},
		{"ppc64", "ppc64", elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_PPC64, 2 /* ELFv2 */, "" +
			"\xe8\x61\x00\x00" + // ld r3, 0(r1)
			"\x38\x00\x00\x01" + // li r0, 1
			"\x44\x00\x00\x02"}, // sc
		{"ppc64le", "ppc64le", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_PPC64, 2, "" +
			"\x00\x00\x61\xe8" + "\x01\x00\x00\x38" + "\x02\x00\x00\x44"},
		{"riscv64", "riscv64", elf.ELFCLASS64, elf.ELFDATA2LSB, elf.EM_RISCV, 0, "" +
			"\x03\x35\x01\x00" + // ld a0, 0(sp)
			"\x93\x08\xd0\x05" + // li a7, 93
			"\x73\x00\x00\x00"}, // ecall
		{"s390x", "s390x", elf.ELFCLASS64, elf.ELFDATA2MSB, elf.EM_S390, 0, "" +
			"\xe3\x20\xf0\x00\x00\x04" + // lg %r2, 0(%r15)
			"\x0a\x01"}, // svc 1
	}
}

// foreign returns the architecture called name; nil if it is this machine's own, or
// one whose programs bob doesn't know.
func foreign(name string) *architecture {
	all := architectures()
	i := slices.IndexFunc(all, func(a architecture) bool { return a.name == name })
	if i < 0 || name == runtime.GOARCH {
		return nil
	}
	return &all[i]
}

// order returns the byte order of programs of a.
func (a *architecture) order() binary.ByteOrder {
	if a.data == elf.ELFDATA2MSB {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// headerSize is the size of the part of an ELF header that tells the architecture.
const headerSize = elf.EI_NIDENT + 4

// pattern returns what programs of a begin with, and which bits of that count: by
// the System V ABI, chapter 4, "ELF Header".
func (a *architecture) pattern() (magic, mask [headerSize]byte) {
	copy(magic[:], elf.ELFMAG)
	magic[elf.EI_CLASS], magic[elf.EI_DATA], magic[elf.EI_VERSION] = byte(a.class), byte(a.data), byte(elf.EV_CURRENT)
	for i := range elf.EI_VERSION + 1 {
		mask[i] = 0xff
	}
	// Linux has two: none, and its own, with extensions of GNU's.
	magic[elf.EI_OSABI] = byte(elf.ELFOSABI_NONE)
	mask[elf.EI_OSABI] = ^byte(elf.ELFOSABI_NONE ^ elf.ELFOSABI_LINUX)
	// A program is ET_EXEC or ET_DYN.
	a.order().PutUint16(magic[elf.EI_NIDENT:], uint16(elf.ET_EXEC))
	a.order().PutUint16(mask[elf.EI_NIDENT:], ^uint16(elf.ET_EXEC^elf.ET_DYN))
	a.order().PutUint16(magic[elf.EI_NIDENT+2:], uint16(a.machine))
	a.order().PutUint16(mask[elf.EI_NIDENT+2:], 0xffff)
	return magic, mask
}

// program returns an executable file of a that exits with the number of its arguments.
func (a *architecture) program() []byte {
	const address, align = 0x400000, 0x10000
	var ident [elf.EI_NIDENT]byte
	magic, _ := a.pattern()
	copy(ident[:], magic[:])
	var header, segment any
	if a.class == elf.ELFCLASS64 {
		const at, entry = 64, 56
		size := uint64(at + entry + len(a.exit))
		header = &elf.Header64{
			Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(a.machine), Version: uint32(elf.EV_CURRENT),
			Entry: address + at + entry, Phoff: at, Flags: a.flags, Ehsize: at, Phentsize: entry, Phnum: 1,
		}
		segment = &elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
			Vaddr: address, Paddr: address, Filesz: size, Memsz: size, Align: align,
		}
	} else {
		const at, entry = 52, 32
		size := uint32(at + entry + len(a.exit))
		header = &elf.Header32{
			Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(a.machine), Version: uint32(elf.EV_CURRENT),
			Entry: address + at + entry, Phoff: at, Flags: a.flags, Ehsize: at, Phentsize: entry, Phnum: 1,
		}
		segment = &elf.Prog32{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
			Vaddr: address, Paddr: address, Filesz: size, Memsz: size, Align: align,
		}
	}
	var b bytes.Buffer
	for _, part := range []any{header, segment, []byte(a.exit)} {
		_ = binary.Write(&b, a.order(), part) // of sizes that are fixed
	}
	return b.Bytes()
}

// The ways in which programs of an architecture don't run.
var (
	// errNoHandler: the kernel knows nothing to run them with.
	errNoHandler = errors.New("the machine has no emulator for them")
	// errNotThere: what it runs them with isn't in the root file system.
	errNotThere = errors.New("the machine's emulator for them, or a library of it, is not in the root file system of a RUN")
	// errArguments: the emulator takes one argument for two, not knowing that it is
	// given argv[0].
	errArguments = errors.New("the emulator passes wrong arguments")
)

// trialLimit bounds how long a small program may take.
const trialLimit = 20 * time.Second

// try runs a program of a in a root file system that holds nothing else. dir is empty
// and is so again afterwards.
func (a *architecture) try(caller context.Context, dir string) error {
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, a.program(), 0o700); err != nil { //nolint:gosec // it is executed
		return err
	}
	defer func() { _ = os.Remove(path) }()
	// A child that is being forked may have it open for writing until it has executed.
	syscall.ForkLock.RLock()
	syscall.ForkLock.RUnlock() //nolint:staticcheck // to wait is all

	// The parent death signal is about the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeout(caller, trialLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/program")
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Pdeathsig: unix.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	var said []byte
	if err = cmd.Start(); err == nil {
		said, _ = io.ReadAll(io.LimitReader(stderr, 1<<10)) // the first of it, if any
		err = cmd.Wait()
	}
	const given, taken = 1, 2
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case exited && exit.ExitCode() == given:
		return nil
	case exited && exit.ExitCode() == taken:
		return errArguments
	case errors.Is(err, unix.ENOEXEC):
		return errNoHandler
	case errors.Is(err, unix.ENOENT):
		return errNotThere
	case ctx.Err() != nil:
		err = ctx.Err()
	case err == nil:
		err = errors.New("exit status 0")
	}
	return errors.New(strings.TrimSuffix(fmt.Sprintf("a small program for it fails: %v: %s", err, strings.TrimSpace(string(said))), ": "))
}
