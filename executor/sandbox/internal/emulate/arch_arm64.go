package emulate

import (
	"debug/elf"

	"golang.org/x/sys/unix"
)

// auditArch is the architecture whose calls are emulated. The calls of 32-bit programs are
// left to the kernel.
const auditArch = unix.AUDIT_ARCH_AARCH64

// ownMachine is what programs of it say that they are for.
const ownMachine = elf.EM_AARCH64

const sysNewfstatat = unix.SYS_FSTATAT
