package chroot

import (
	"os/exec"
	"syscall"
)

// variable is the environment variable that makes a process one of those of
// a command in a chroot. It has no other.
const variable = "_BOB_CHROOT"

// Its values.
const (
	stageGuard   = "guard"
	stageCommand = "command"
)

// newStage returns a command that runs this executable as one of those
// processes, in a session of its own.
func newStage(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // ended by its pipe or its parent
	cmd.Env = []string{variable + "=" + stage}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}
