package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/chroot"
	"github.com/bobbuild/bob/executor/sandbox/internal/entry"
)

// runChroot is Run where nothing can be mounted. state is an empty directory.
func runChroot(ctx context.Context, machine *chroot.Machine, p *Process, state string, clone func(ctx context.Context, from, to string) error) error {
	if err := p.checkChroot(); err != nil {
		return err
	}
	root, err := canonical(p.Root)
	if err != nil {
		return err
	}
	limits, err := rlimits(p.Ulimits)
	if err != nil {
		return err
	}
	if err := p.checkUlimits(); err != nil {
		return err
	}
	// The host name can't be another than the machine's.
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	etc, err := writeHostFiles(state, hostname, p.ExtraHosts, "")
	if err != nil {
		return err
	}
	result, err := machine.Run(ctx, &chroot.Command{
		Root: root, State: state, Args: p.Args, Env: p.Env, Dir: workingDir(p.Dir),
		UID: p.UID, GID: p.GID, Groups: groups(p.Groups), Umask: entry.Umask, Rlimits: limits,
		Etc: forChroot(etc), Mounts: forChroot(p.Mounts), Copy: clone, Stdout: p.Stdout, Stderr: p.Stderr,
	})
	p.Restored = result.Restored
	switch {
	case result.Refused != "":
		return errors.Join(startFailure(ctx, errors.New(initFailed+result.Refused)), err)
	case result.Ended:
		return errors.Join(statusError(result.Status), err)
	}
	return err
}

// forChroot returns mounts as a chroot has them.
func forChroot(mounts []Mount) []chroot.Mount {
	all := make([]chroot.Mount, 0, len(mounts))
	for _, m := range mounts {
		converted := chroot.Mount{Target: m.Target, Source: m.Source, ReadOnly: m.ReadOnly}
		switch m.Kind {
		case Bind:
			converted.Kind = chroot.Bind
		case Tmpfs:
			converted.Kind = chroot.Tmpfs
		case Memory:
			converted.Kind = chroot.Secret
			converted.Content, converted.UID, converted.GID, converted.Mode = m.File.Content, m.File.UID, m.File.GID, m.File.Mode
		}
		all = append(all, converted)
	}
	return all
}

// notInChroot says that something that was asked for takes what a RUN in a chroot hasn't.
func notInChroot(asked, takes string) error {
	return fmt.Errorf("%s: a RUN with --isolation=chroot hasn't %s: leave it out, or use --isolation=sandbox where the machine allows that (`bob doctor` tells)", asked, takes)
}

// checkChroot reports what the process asks for that no chroot can give.
func (p *Process) checkChroot() error {
	switch {
	case p.Insecure:
		return notInChroot("RUN --security=insecure", "namespaces of its own")
	case p.Network == None:
		return notInChroot("RUN --network=none", "a network namespace")
	case p.Network != Host:
		return notInChroot("--network=private", "a network namespace")
	case p.ShmSize > 0:
		return notInChroot("--shm-size", "a file system at /dev/shm")
	case p.Hostname != "":
		return notInChroot("BUILDKIT_SANDBOX_HOSTNAME="+p.Hostname, "a host name of its own")
	}
	return nil
}

// checkUlimits reports limits that bob can't raise for a command in a chroot, whose powers
// are bob's at most.
func (p *Process) checkUlimits() error {
	for _, l := range p.Ulimits {
		var own unix.Rlimit
		if err := unix.Getrlimit(rlimitTypes[l.Name], &own); err != nil || l.Hard > own.Max {
			return errors.Join(err, fmt.Errorf("ulimit %s: hard limit %d is above bob's own, %d: start the container with a higher one", l.Name, l.Hard, own.Max))
		}
	}
	return nil
}

// statusError turns the status of a command into nil or an *ExitError.
func statusError(status unix.WaitStatus) error {
	switch {
	case status.Signaled():
		return &ExitError{Code: codeSignal + int(status.Signal()), Signal: status.Signal()}
	case status.ExitStatus() != 0:
		return &ExitError{Code: status.ExitStatus()}
	}
	return nil
}
