package chroot

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/stream"
)

// found is what the guard found out.
type found struct {
	Status unix.WaitStatus // of the command, if Refused is ""
	// Refused says why it was not started.
	Refused string
}

// runGuarded runs the command under a guard and waits for both.
func runGuarded(ctx context.Context, c *Command, o *order, secrets []*os.File) (Result, error) {
	caller := ctx
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	output, err := stream.Open(c.Stdout, c.Stderr)
	if err != nil {
		return Result{}, err
	}
	o.Secrets = len(secrets)
	g, err := startGuard(output.Stdout(), output.Stderr(), secrets)
	if err != nil {
		return Result{}, errors.Join(err, output.Finish())
	}
	output.Start(cancel)
	stop := context.AfterFunc(ctx, g.end)
	found, err := g.wait(o)
	killed := !stop()
	errOutput := output.Finish()
	switch {
	case killed && (err != nil || found.Refused != "" || found.Status.Signal() == unix.SIGKILL):
		if caller.Err() != nil {
			return Result{}, caller.Err()
		}
		return Result{}, context.Cause(ctx) // a writer failed
	case err != nil:
		return Result{}, errors.Join(err, errOutput)
	case found.Refused != "":
		return Result{Refused: found.Refused}, nil
	}
	return Result{Ended: true, Status: found.Status}, errOutput
}

// guard is the process that starts a command in a chroot, and outlives it and all
// that it started. It ends them when it finds the pipe of its orders closed: by this
// process, or by the kernel when this process is gone.
type guard struct {
	cmd    *exec.Cmd
	orders *os.File
	result *os.File
}

// The descriptors of the guard.
const (
	guardOrders = 3 + iota
	guardResult
	guardSecrets // the first of them
)

// startGuard starts a guard whose command writes to stdout and stderr.
func startGuard(stdout, stderr *os.File, secrets []*os.File) (*guard, error) {
	orderR, orderW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start guard: %w", err)
	}
	defer func() { _ = orderR.Close() }()
	resultR, resultW, err := os.Pipe()
	if err != nil {
		_ = orderW.Close()
		return nil, fmt.Errorf("start guard: %w", err)
	}
	defer func() { _ = resultW.Close() }()
	g := &guard{cmd: newStage(stageGuard), orders: orderW, result: resultR}
	g.cmd.Stdout, g.cmd.Stderr = stdout, stderr
	g.cmd.ExtraFiles = slices.Concat([]*os.File{orderR, resultW}, secrets)
	if err := g.cmd.Start(); err != nil {
		_, _ = orderW.Close(), resultR.Close()
		return nil, fmt.Errorf("start guard: %w", err)
	}
	return g, nil
}

// end has the guard end the command. It may be called at any time and repeatedly.
func (g *guard) end() { _ = g.orders.Close() }

// wait hands the guard its order and waits until it is gone.
func (g *guard) wait(o *order) (*found, error) {
	errSend := gob.NewEncoder(g.orders).Encode(o)
	result := new(found)
	errReceive := gob.NewDecoder(g.result).Decode(result)
	g.end()
	_ = g.result.Close()
	err := g.cmd.Wait()
	if err == nil && errReceive == nil {
		return result, nil
	}
	// Nobody but root, or the kernel that is out of memory, ends a guard.
	err = fmt.Errorf("the process that guards the command was ended: %w", errors.Join(err, errSend, errReceive))
	return nil, errors.Join(err, killRooted(o.Root))
}
