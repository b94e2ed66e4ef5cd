package binfmt_test

import (
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/moby/sys/userns"

	"github.com/bobbuild/bob/executor/binfmt"
	"github.com/bobbuild/bob/executor/isolation"
)

// TestArchitectureOfPrograms has the headers of real programs told apart.
func TestArchitectureOfPrograms(t *testing.T) {
	t.Parallel()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ want, header string }{
		{runtime.GOARCH, hex.EncodeToString(self[:20])}, // this program
		// What Go makes, position-independent executables behind the others.
		{"386", "7f454c4601010100000000000000000002000300"},
		{"amd64", "7f454c4602010100000000000000000002003e00"},
		{"amd64", "7f454c4602010100000000000000000003003e00"},
		{"arm", "7f454c4601010100000000000000000002002800"},
		{"arm64", "7f454c460201010000000000000000000200b700"},
		{"arm64", "7f454c460201010000000000000000000300b700"},
		{"loong64", "7f454c4602010100000000000000000002000201"},
		{"loong64", "7f454c4602010100000000000000000003000201"},
		{"mips", "7f454c4601020100000000000000000000020008"},
		{"mipsle", "7f454c4601010100000000000000000002000800"},
		{"mips64", "7f454c4602020100000000000000000000020008"},
		{"mips64le", "7f454c4602010100000000000000000002000800"},
		{"ppc64", "7f454c4602020100000000000000000000020015"},
		{"ppc64le", "7f454c4602010100000000000000000002001500"},
		{"ppc64le", "7f454c4602010100000000000000000003001500"},
		{"riscv64", "7f454c460201010000000000000000000200f300"},
		{"s390x", "7f454c4602020100000000000000000000020016"},
		// Debian's busybox-static, with GNU's extensions.
		{"amd64", "7f454c4602010103000000000000000002003e00"},
		{"arm64", "7f454c460201010300000000000000000200b700"},
		// An object file and a core dump of arm64, a program for FreeBSD, one of x32,
		// one of big-endian arm64, a script and nothing.
		{"", "7f454c460201010000000000000000000100b700"},
		{"", "7f454c460201010000000000000000000400b700"},
		{"", "7f454c460201010900000000000000000200b700"},
		{"", "7f454c4601010100000000000000000002003e00"},
		{"", "7f454c46020201000000000000000000000200b7"},
		{"", hex.EncodeToString([]byte("#!/bin/sh\necho hello, this is a script\n")[:20])},
		{"", strings.Repeat("00", 20)},
	} {
		header, err := hex.DecodeString(test.header)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range binfmt.Architectures() {
			if got := a.Matches(header); got != (a.Name() == test.want) {
				t.Errorf("%s is a program of %s: %v", test.header, a.Name(), got)
			}
		}
	}
}

// own is the mode of this process, which is in a user namespace of its own.
func own(t *testing.T) *isolation.Mode {
	t.Helper()
	if entered == nil || !entered.OwnUser {
		t.Skip("this process has no user namespace of its own")
	}
	return entered
}

// emulators returns emulators of this process, and the architectures that it has
// QEMU for; whatever the machine runs itself, QEMU shall.
func emulators(t *testing.T, mode *isolation.Mode) (*binfmt.Emulators, []binfmt.Architecture) {
	t.Helper()
	e := &binfmt.Emulators{Dir: t.TempDir(), Mode: mode, Paths: map[string]string{}}
	var found []binfmt.Architecture
	for _, a := range binfmt.Architectures() {
		if path, err := exec.LookPath("qemu-" + a.QEMU() + "-static"); err == nil && a.Name() != runtime.GOARCH {
			e.Paths[a.Name()] = path
			found = append(found, a)
		}
	}
	if len(found) == 0 {
		t.Skip("there is no qemu-ARCH-static: apt-get install --no-install-recommends qemu-user-static")
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e, found
}

// runForeign runs the program of a with so many arguments and returns its exit status.
func runForeign(t *testing.T, a binfmt.Architecture, arguments int) int {
	t.Helper()
	_, code := run(t, newRoot(t, a.Program()), slices.Repeat([]string{"/program"}, arguments)...)
	return code
}

// The tests below are not parallel: what is registered is so for this whole namespace.

// TestEmulators runs programs of all architectures.
func TestEmulators(t *testing.T) {
	e, all := emulators(t, own(t))
	var names []string
	for _, a := range all {
		names = append(names, a.Name())
	}
	if err := e.Prepare(t.Context(), append(names, runtime.GOARCH, names[0], "nonesuch")); err != nil {
		t.Fatal(err)
	}
	t.Run("programs", func(t *testing.T) { // and its subtests end before the emulators do
		for _, a := range all {
			t.Run(a.Name(), func(t *testing.T) {
				t.Parallel()
				if got := runForeign(t, a, 3); got != 3 {
					t.Errorf("with 3 arguments: exit status %d", got)
				}
			})
		}
	})
	t.Run("nothing can be registered", func(t *testing.T) {
		const script = "mkdir /m; mount -t binfmt_misc x /m || echo no; echo x > /proc/sys/fs/binfmt_misc/register || echo no; ls /m /proc/sys/fs/binfmt_misc"
		if out, code := run(t, newRoot(t, nil), "/bin/busybox", "sh", "-c", script); code != 0 || out != "no\nno\n/m:\n\n/proc/sys/fs/binfmt_misc:\n" {
			t.Errorf("exit status %d, output is %q", code, out)
		}
	})
	// Whose they are, those below the namespace can't tell.
	machine := &binfmt.Emulators{Dir: t.TempDir(), Mode: &isolation.Mode{Isolation: isolation.Namespaces}}
	if err := machine.Prepare(t.Context(), names); err != nil {
		t.Errorf("as the machine's: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	machine = &binfmt.Emulators{Dir: t.TempDir(), Mode: &isolation.Mode{Isolation: isolation.Namespaces}}
	for _, name := range names {
		// Some machines of 64 bits run these themselves.
		native := name == "386" || name == "arm"
		if err := machine.Prepare(t.Context(), []string{name}); err == nil && !native {
			t.Errorf("programs of %s run after Close", name)
		}
	}
}

// TestEmulatorsRefused wants an error that names the architecture and what to do, and
// nothing registered.
func TestEmulatorsRefused(t *testing.T) {
	mode := own(t)
	e, all := emulators(t, mode)
	a, path := all[0].Name(), e.Paths[all[0].Name()]
	dynamic, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path, want string
		mode             isolation.Mode
	}{
		{"not in PATH", "", "isn't in PATH", *mode},
		{"no program", "/etc/passwd", "permission denied", *mode},
		{"not there", "/nonesuch", "no such file", *mode},
		{"no emulator", "/bin/busybox", "/bin/busybox", *mode},
		{"dynamically linked", dynamic, "linked dynamically", *mode},
		{"root of the machine", path, "--rootless", isolation.Mode{Isolation: isolation.Namespaces}},
		{"a chroot", path, "a chroot without namespaces bob can't register", isolation.Mode{Isolation: isolation.Chroot}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.path == "" {
				t.Setenv("PATH", "/nonesuch")
			}
			e := &binfmt.Emulators{Dir: t.TempDir(), Mode: &test.mode, Paths: map[string]string{a: test.path}}
			defer e.Close()
			err := e.Prepare(t.Context(), []string{runtime.GOARCH, a})
			if err == nil && test.path == "" {
				t.Skip("the machine has an emulator for " + a)
			}
			refused := new(binfmt.ArchitectureError)
			if !errors.As(err, &refused) || refused.Architecture != a || refused.Obstacle.Fix == "" || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q in it", err, test.want)
			}
			if left, err := filepath.Glob(e.Dir + "/*"); err != nil || len(left) > 0 {
				t.Errorf("%v, left behind: %v", err, left)
			}
		})
	}
}

// TestUnawareEmulator has an emulator that doesn't know of argv[0].
func TestUnawareEmulator(t *testing.T) {
	mode := own(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("the emulator is a program of amd64")
	}
	all := binfmt.Architectures()
	native := all[slices.IndexFunc(all, func(a binfmt.Architecture) bool { return a.Name() == runtime.GOARCH })]
	foreign := all[slices.IndexFunc(all, func(a binfmt.Architecture) bool { return a.Name() == "s390x" })]
	path := filepath.Join(t.TempDir(), "emulator")
	if err := os.WriteFile(path, native.Unaware(), 0o700); err != nil {
		t.Fatal(err)
	}
	e := &binfmt.Emulators{Dir: t.TempDir(), Mode: mode, Paths: map[string]string{"s390x": path}}
	defer e.Close()
	if err := e.Prepare(t.Context(), []string{"s390x"}); err != nil {
		t.Fatal(err)
	}
	if got := runForeign(t, foreign, 3); got != 3 {
		t.Errorf("with 3 arguments: exit status %d", got)
	}
}

// TestEmulatorsOfRoot wants nothing registered on the machine by root.
func TestEmulatorsOfRoot(t *testing.T) {
	if entered == nil || entered.OwnUser || userns.RunningInUserNS() {
		t.Skip("only root can register on the machine")
	}
	dir := t.TempDir()
	if err := unix.Mount("binfmt_misc", dir, "binfmt_misc", unix.MS_RDONLY, ""); err != nil {
		t.Skip(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	before := names(t, dir)
	e, all := emulators(t, entered)
	err := e.Prepare(t.Context(), []string{all[0].Name()})
	if refused := new(binfmt.ArchitectureError); !errors.As(err, &refused) || !strings.Contains(refused.Obstacle.Fix, "--rootless") {
		t.Errorf("error is %v", err)
	}
	if after := names(t, dir); !slices.Equal(before, after) {
		t.Errorf("registered on the machine is %v, was %v", after, before)
	}
}

// names lists a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range found {
		all = append(all, e.Name())
	}
	return all
}
