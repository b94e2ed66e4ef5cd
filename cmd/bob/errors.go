package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/diagnosis"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
)

// The exit codes of bob. A signal adds its number to 128, as in a shell.
const (
	exitOK     = 0
	exitFailed = 1 // the build, or what it needed
	exitUsage  = 2 // the command line
	exitNoRUN  = 3 // bob doctor: only builds without RUN work
)

func exitCode(err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, new(*cli.UsageError)):
		return exitUsage
	case errors.Is(err, diagnosis.ErrWithoutRUN):
		return exitNoRUN
	}
	if sig, ok := errors.AsType[*signalError](err); ok {
		return 128 + int(sig.sig)
	}
	return exitFailed
}

// report tells the user why bob ends: with the excerpt of the Dockerfile where
// an instruction is to blame.
func report(w io.Writer, err error) {
	if errors.Is(err, errWarned) || errors.Is(err, diagnosis.ErrWithoutRUN) || errors.Is(err, diagnosis.ErrNone) {
		return
	}
	var excerpt string
	if loc, ok := location(err); ok {
		excerpt = loc.Excerpt()
	}
	fmt.Fprint(w, terminal.EscapeLines(fmt.Sprintf("%sERROR: %v\n", excerpt, err)))
}

func location(err error) (dockerfile.Location, bool) {
	if e, ok := errors.AsType[*executor.StepError](err); ok {
		return e.Location, true
	}
	if e, ok := errors.AsType[*dockerfile.Error](err); ok {
		return e.Location, true
	}
	return dockerfile.Location{}, false
}

// errWarned ends a check that found something. The warnings are printed by then.
var errWarned = errors.New("the check has found warnings")

// A signalError is the cause of a context that a signal ended.
type signalError struct{ sig syscall.Signal }

func (e *signalError) Error() string { return e.sig.String() }

// interrupted returns the signal that ended ctx in place of err, since err is then only
// a consequence of the signal. It keeps the error of a step, which failed before the
// signal came.
func interrupted(ctx context.Context, err error) error {
	_, step := errors.AsType[*executor.StepError](err)
	if cause := context.Cause(ctx); err != nil && cause != nil && !step {
		return cause
	}
	return err
}
