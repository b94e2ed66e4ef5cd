package sandbox_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/bobbuild/bob/executor/sandbox/sandboxtest"
	"github.com/opencontainers/runc/libcontainer/seccomp"
)

// runUntilKilled is the bob of TestContainerDiesWithBob.
func runUntilKilled(root string) int {
	r := &sandbox.Runner{Dir: root + ".state"}
	p := shell(root, "echo ready "+strconv.Itoa(os.Getpid())+"; sleep 1"+strconv.Itoa(os.Getppid()))
	p.Stdout = os.Stdout
	_ = r.Run(context.Background(), p)
	return 99
}

func TestContainerDiesWithBob(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Chmod(filepath.Dir(root), 0o777); err != nil {
		t.Fatal(err)
	}
	if !seccomp.Enabled {
		t.Skip("built without -tags seccomp")
	}
	if errNotEntered != nil {
		t.Skip(errNotEntered)
	}
	if os.Getenv(modeVariable) != "" {
		t.Skip("entered elsewhere")
	}
	modes := []string{modeRootless}
	if !sandboxtest.InUserNamespace(t) {
		modes = append(modes, "root")
	}
	for _, mode := range modes { // an ordinary user can't read the root file system
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			cmd := again(t, mode, nil)
			cmd.Env = append(cmd.Env, killedVariable+"="+newRoot(t))
			inner := sandboxtest.Start(t, cmd)
			sleep := "1" + strconv.Itoa(cmd.Process.Pid)
			if len(processesWith(t, "\x00"+sleep+"\x00")) == 0 && len(processesWith(t, sleep)) == 0 {
				t.Error("the container doesn't run")
			}
			if err := syscall.Kill(inner, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			sandboxtest.Gone(t, func() bool { return len(processesWith(t, "sleep\x00"+sleep)) > 0 })
		})
	}
}
