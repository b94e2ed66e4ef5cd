package binfmt

// Architecture lets tests see what bob knows of programs of an architecture.
type Architecture struct{ *architecture }

// Architectures returns all that bob knows.
func Architectures() (all []Architecture) {
	for _, a := range architectures() {
		all = append(all, Architecture{&a})
	}
	return all
}

// Name is Go's, QEMU is QEMU's.
func (a Architecture) Name() string { return a.name }

func (a Architecture) QEMU() string { return a.qemu }

// Program returns an executable file that exits with the number of its arguments.
func (a Architecture) Program() []byte { return a.program() }

// Matches reports whether a file that begins so is taken for a program of a.
func (a Architecture) Matches(header []byte) bool {
	magic, mask := a.pattern()
	for i := range magic {
		if header[i]&mask[i] != magic[i] {
			return false
		}
	}
	return true
}

// Unaware returns an emulator, a program of a, that exits with what a program that
// it emulates would: the number of its arguments, of which it takes argv[0] for one.
func (a Architecture) Unaware() []byte {
	b := *a.architecture
	b.exit = "" +
		"\x8b\x3c\x24" + // mov (%rsp), %edi
		"\xff\xcf" + // dec %edi
		"\xb8\x3c\x00\x00\x00" + // mov $60, %eax
		"\x0f\x05" // syscall
	return b.program()
}
