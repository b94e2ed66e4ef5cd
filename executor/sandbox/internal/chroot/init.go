package chroot

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// Init must be called first in main. In the processes of a command in a chroot it doesn't
// return.
func Init() {
	if stage, found := os.LookupEnv(variable); found {
		os.Exit(runStage(stage))
	}
}

// runStage is one of those processes. It returns the exit status.
func runStage(stage string) int {
	// What is set below is the thread's, as is the parent death signal of a child.
	runtime.LockOSThread()
	var err error
	switch stage {
	case stageGuard:
		err = runGuard()
	case stageCommand:
		err = runCommand()
	default:
		err = errors.New("unknown stage " + stage)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 255 // as libcontainer's init
}
