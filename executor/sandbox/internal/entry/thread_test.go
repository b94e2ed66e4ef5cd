//go:build cgo && seccomp

package entry

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/bobbuild/bob/executor/sandbox/internal/filter"
	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == loaded {
		os.Exit(beLoaded())
	}
	os.Exit(m.Run())
}

// loaded is the argument by which the test has itself be a process that loads a filter.
const loaded = "be-loaded"

// beLoaded becomes another user, as a container does, and makes calls when it is told
// that its filter is loaded.
func beLoaded() int {
	fail := func(err error) int {
		fmt.Println(err)
		return 1
	}
	if err := startThread(FilterSocket); err != nil {
		return fail(err)
	}
	if err := unix.Setuid(65534); err != nil {
		return fail(err)
	}
	fmt.Println("ready")
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return fail(err)
	}
	fmt.Println(unix.Mkdirat(-1, "x", 0), unix.Sethostname([]byte("x")))
	return 0
}

// TestSend has another process load a filter after it has become another user.
func TestSend(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root can become another user")
	}
	exdev, enotty := uint(unix.EXDEV), uint(unix.ENOTTY)
	compiled, err := filter.Compile(&configs.Seccomp{DefaultAction: configs.Allow, Syscalls: []*configs.Syscall{
		{Name: "mkdirat", Action: configs.Errno, ErrnoRet: &exdev}, {Name: "sethostname", Action: configs.Errno, ErrnoRet: &enotty},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := sockets(t)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", loaded)
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = theirs.Close()
	line := make([]byte, len("ready\n"))
	if _, err := io.ReadFull(out, line); err != nil || string(line) != "ready\n" {
		rest, _ := io.ReadAll(out)
		t.Fatalf("%q, %v", string(line)+string(rest), err)
	}
	if listener, err := compiled.Send(ours); err != nil || listener != -1 {
		t.Fatalf("listener %d, %v", listener, err)
	}
	if _, err := in.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	if want := fmt.Sprintln(unix.EXDEV, unix.ENOTTY); string(said) != want {
		t.Errorf("the process said %q, want %q", said, want)
	}
	if _, err := compiled.Send(ours); err == nil {
		t.Error("a filter is loaded into a process that has ended")
	}
}

func sockets(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	t.Cleanup(func() { _ = ours.Close() })
	return ours, theirs
}
