package sandbox_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/snapshot/owners"
)

// toldOfOwners is what the program below testdata/owners prints, by the kernel of a machine
// with all IDs. Lines about calls with 16 bits are those of 32-bit programs alone.
const toldOfOwners = `stat: 5:65536 100644 size 5
lstat: 7:8 120777 size 7
fstat: 9:10 106755 size 0
fstatat: 9:12 100640 size 0
statx: 34464:13 100640
directory: 5:6 42750 size 0
directory in it: 0:6 42755 size 0
record: true
16 bits: stat of a great group: 5:65534 100644 size 5
16 bits: stat: 5:77 100644 size 5
16 bits: lstat: 78:77 100644 size 5
16 bits: groups: [0 0 9 0 9 0] 9
16 bits: supplementary groups: 2 [5 0 6 0]
IDs: [3 65536] 4 1000 0 1 2 3 4 1000 1 2
setgroups of a user: operation not permitted
chown of a user: operation not permitted
of a user: 1000:2 40755 size 0
again: 0
`

// TestProgramsOfBothWidths has a program of 64 bits and one of 32 do the same to owners, in
// every mode with the same result.
func TestProgramsOfBothWidths(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("the 32-bit programs of other architectures are the kernel's")
	}
	for _, name := range []string{"owners-amd64", "owners-386"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			program := filepath.Join(programs(t), name)
			if err := exec.CommandContext(t.Context(), program, "nothing").Run(); err != nil {
				t.Skip(err)
			}
			root := newRoot(t)
			install(t, program, filepath.Join(root, "bin/owners"))
			var out bytes.Buffer
			p := shell(root, "/bin/busybox mkdir -m 777 /tmp/w; cd /tmp/w; owners")
			p.Stdout, p.Stderr = &out, &out
			if err := newRunner(t).Run(t.Context(), p); err != nil {
				t.Error(err)
			}
			var want strings.Builder
			for line := range strings.Lines(toldOfOwners) {
				if name == "owners-386" || !strings.HasPrefix(line, "16 bits") {
					want.WriteString(line)
				}
			}
			if out.String() != want.String() {
				t.Errorf("output:\n%swant:\n%s", &out, &want)
			}
			for name, want := range map[string]unix.Stat_t{
				"c": {Mode: unix.S_IFCHR | 0o644, Rdev: unix.Mkdev(1, 3)},
				"b": {Mode: unix.S_IFBLK | 0o640, Rdev: unix.Mkdev(8, 1)},
				"p": {Mode: unix.S_IFIFO | 0o644},
			} {
				var st unix.Stat_t
				err := owners.Recording(oneID()).Fstatat(unix.AT_FDCWD, filepath.Join(root, "tmp/w", name), &st)
				if err != nil || st.Mode != want.Mode || st.Rdev != want.Rdev {
					t.Errorf("%s: %v, mode %o, device %x", name, err, st.Mode, st.Rdev)
				}
			}
		})
	}
}

// install copies a program.
func install(t testing.TB, from, to string) {
	t.Helper()
	program, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, program, 0o755)
	}
	if err == nil {
		err = os.Chmod(to, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}
