package emulate

import (
	"debug/elf"

	"golang.org/x/sys/unix"
)

// auditArch is the architecture of bob's own programs.
const auditArch = unix.AUDIT_ARCH_X86_64

// ownMachine is what programs of it say that they are for.
const ownMachine = elf.EM_X86_64

const sysNewfstatat = unix.SYS_NEWFSTATAT
