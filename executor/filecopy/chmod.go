package filecopy

import (
	"fmt"
	"io/fs"
	"strconv"

	mode "github.com/tonistiigi/dchapes-mode"
)

// Chmod is what --chmod asks for.
type Chmod struct {
	octal    uint32
	symbolic *mode.Set // nil: octal
}

// ParseChmod parses an octal number from 0 to 07777 or a symbolic mode as of
// chmod(1), which is applied with a umask of 0 as in BuildKit.
func ParseChmod(s string) (*Chmod, error) {
	if n, err := strconv.ParseUint(s, 8, 32); err == nil {
		if n > modeBits {
			return nil, fmt.Errorf("mode %q: want an octal number from 0 to 07777", s)
		}
		return &Chmod{octal: uint32(n)}, nil
	}
	set, err := mode.ParseWithUmask(s, 0)
	if err != nil {
		return nil, fmt.Errorf("mode %q: want an octal number or a symbolic mode: %w", s, err)
	}
	return &Chmod{symbolic: &set}, nil
}

// modeBits are the bits of st_mode that chmod sets.
const modeBits = 0o7777

// of returns the mode of a file or directory that had the st_mode old.
func (c *Chmod) of(old uint32) uint32 {
	switch {
	case c == nil:
		return old & modeBits
	case c.symbolic == nil:
		return c.octal
	}
	m := fs.FileMode(old & 0o777)
	for _, bit := range specialBits {
		if old&bit.unix != 0 {
			m |= bit.mode
		}
	}
	if isDir(old) {
		m |= fs.ModeDir
	}
	m = c.symbolic.Apply(m)
	out := uint32(m.Perm())
	for _, bit := range specialBits {
		if m&bit.mode != 0 {
			out |= bit.unix
		}
	}
	return out
}

// specialBits are the bits that Go has its own numbers for.
var specialBits = [...]struct {
	unix uint32
	mode fs.FileMode
}{{0o4000, fs.ModeSetuid}, {0o2000, fs.ModeSetgid}, {0o1000, fs.ModeSticky}}

// made returns the mode of directories made on the way to the destination: the
// lower nine bits of an octal mode, as from BuildKit.
func (c *Chmod) made() uint32 {
	if c == nil || c.symbolic != nil {
		return 0o755
	}
	return c.octal & 0o777
}
