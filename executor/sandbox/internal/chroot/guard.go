package chroot

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// runGuard is the guard. It leaves no process behind, and no secret.
func runGuard() error {
	orders, out := os.NewFile(guardOrders, "orders"), os.NewFile(guardResult, "result")
	if err := closeOnExec(); err != nil {
		return err
	}
	order := new(order)
	if err := gob.NewDecoder(orders).Decode(order); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	defer wipeSecrets(order.Secrets)
	if len(order.Protected) > 0 {
		order.Protected = append(order.Protected, os.Getpid())
	}
	// Whatever loses its parent becomes a child of the guard.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	nodes, err := newNodeMaker()
	if err != nil {
		return err
	}
	result, err := guardCommand(order, orders, nodes)
	if err := errors.Join(err, endChildren(), nodes.stop()); err != nil {
		return err
	}
	wipeSecrets(order.Secrets)
	return gob.NewEncoder(out).Encode(result)
}

// guardCommand starts the command and waits for it.
func guardCommand(order *order, orders io.Reader, nodes *nodeMaker) (*found, error) {
	orderR, orderW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := newStage(stageCommand)
	cmd.SysProcAttr.Pdeathsig = unix.SIGKILL
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{orderR, reportW, nodes.theirs}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_, _ = orderR.Close(), reportW.Close()
	go func() {
		_, _ = io.Copy(io.Discard, orders) // until they end
		for {
			killChildren()
			time.Sleep(killPause)
		}
	}()
	// What goes wrong here, the process that read it reports.
	_ = gob.NewEncoder(orderW).Encode(order)
	_ = orderW.Close()
	refused, err := io.ReadAll(reportR)
	if err != nil {
		return nil, err
	}
	if err := nodes.start(); err != nil {
		return nil, err
	}
	result := &found{Refused: string(refused)}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("wait4", err)
		}
		if pid == cmd.Process.Pid {
			result.Status = status
			return result, nil
		}
	}
}

// endChildren ends all descendants of this process, which adopts those whose
// parents are gone: it has none left when it has no child.
func endChildren() error {
	for {
		killChildren()
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return nil
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return os.NewSyscallError("wait4", err)
			}
			if err == nil && pid == 0 {
				break
			}
		}
		time.Sleep(killPause)
	}
}

// wipeSecrets empties the files of secrets, wherever the command moved them.
func wipeSecrets(count int) {
	for fd := guardSecrets; fd < guardSecrets+count; fd++ {
		_ = wipe(fd)
	}
}
