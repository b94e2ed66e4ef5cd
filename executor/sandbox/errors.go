package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Exit codes that a shell, and every container runtime, uses for a command
// that could not be executed.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
	codeSignal        = 128 // plus the signal's number
)

// ExitError says that the command of a Process ended unsuccessfully, or could
// not be executed at all.
type ExitError struct {
	// Code is the exit status: 1 to 255. It is 128+n when signal n killed
	// the command, 127 when the command was not found and 126 when it is not
	// executable.
	Code int
	// Signal is the signal that killed the command, 0 if no signal did.
	Signal syscall.Signal
	// Limit says which limit the command reached, "" if no limit is known.
	Limit string
	// Reason says why the command could not be executed; empty when it ran.
	Reason string
}

// Error returns for example "exit code: 1", "exit code: 137 (killed)" or
// `exec: "foo": executable file not found in $PATH`.
func (e *ExitError) Error() string {
	if e.Reason != "" {
		return e.Reason
	}
	text := fmt.Sprintf("exit code: %d", e.Code)
	if e.Signal != 0 {
		text += fmt.Sprintf(" (%s)", e.Signal)
	}
	if e.Limit != "" {
		text += ": " + e.Limit
	}
	return text
}

// exitStatus turns what waiting for the container's first process returned
// into nil or an *ExitError.
func exitStatus(state *os.ProcessState, err error) error {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("wait for command: %w", err)
	}
	status, ok := state.Sys().(syscall.WaitStatus)
	switch {
	case !ok:
		return fmt.Errorf("wait for command: no wait status in %T", state.Sys())
	case status.Signaled():
		return &ExitError{Code: codeSignal + int(status.Signal()), Signal: status.Signal()}
	case status.ExitStatus() != 0:
		return &ExitError{Code: status.ExitStatus()}
	}
	return nil
}

// initFailed precedes what the container's init reports before it executes the
// command. The text after it is all that crosses the process boundary.
const initFailed = "error during container init: "

// execFailure returns an *ExitError if err says that libcontainer's init found
// no command to execute, else nil.
func execFailure(err error) *ExitError {
	_, reason, found := strings.Cut(err.Error(), initFailed)
	if !found || !strings.HasPrefix(reason, `exec: "`) {
		return nil
	}
	for _, known := range []struct {
		suffix string
		code   int
	}{
		{exec.ErrNotFound.Error(), codeNotFound},
		{syscall.ENOENT.Error(), codeNotFound},
		{syscall.ENOTDIR.Error(), codeNotFound},
		{syscall.EACCES.Error(), codeNotExecutable},
		{syscall.EISDIR.Error(), codeNotExecutable},
		{syscall.ELOOP.Error(), codeNotExecutable},
	} {
		if strings.HasSuffix(reason, known.suffix) {
			return &ExitError{Code: known.code, Reason: reason}
		}
	}
	return nil
}

// startError says that a container could not be started. The command did not
// run.
type startError struct{ err error }

func (e *startError) Error() string { return "start container: " + e.err.Error() }

func (e *startError) Unwrap() error { return e.err }

// startFailure explains why a container was not started.
func startFailure(ctx context.Context, err error) error {
	if exit := execFailure(err); exit != nil {
		return exit
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return &startError{err}
}
