package sandbox

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runc/libcontainer/configs"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
	"github.com/bobbuild/bob/executor/sandbox/landlock"
)

// chrootOrder is what the processes of a command in a chroot are told: gob, since
// arguments and variables need not be UTF-8.
type chrootOrder struct {
	Root         string
	Args, Env    []string
	Dir          string
	UID, GID     uint32
	Groups       []uint32
	Limits       []configs.Rlimit
	Capabilities []string
	Landlock     int   // version of the kernel's interface, 0 if there is none
	AnyFile      bool  // whether Landlock doesn't keep to the files of the root
	Protected    []int // processes that must not be signalled, where Landlock can't see to that
	Secrets      int   // how many files the guard wipes at the end
	Devices      deviceMaker
}

// A deviceMaker is who makes the device nodes of a command in a chroot.
type deviceMaker int

const (
	kernelMakes deviceMaker = iota // the harmless ones
	guardMakes
	outerMakes // a bob around this one
)

// chrootResult is what the guard found out.
type chrootResult struct {
	Status unix.WaitStatus // of the command, if Refused is ""
	// Refused says why it was not started.
	Refused string
}

// runChroot is Run for Chroot. Everything that it makes it also removes, in
// reverse.
func (r *Runner) runChroot(ctx context.Context, p *Process) (err error) {
	if r.Limiter != nil {
		return fmt.Errorf("%w, or limit the container that bob runs in", notInChroot("--memory, --cpus and --pids-limit", "a cgroup of its own"))
	}
	order, err := newChrootOrder(p)
	if err != nil {
		return err
	}
	state, err := r.makeState()
	if err != nil {
		return err
	}
	clean := func(undo func() error) { err = errors.Join(err, undo()) }
	defer clean(func() error { return os.RemoveAll(state) })
	places, err := openPlaces(order.Root, state, r.Copy)
	if err != nil {
		return err
	}
	defer clean(func() error {
		restored, err := places.remove(context.WithoutCancel(ctx))
		p.Restored = restored
		return err
	})
	if err := places.addSystem(p.ExtraHosts, p.Mounts); err != nil {
		return err
	}
	if err := places.addMounts(ctx, p.Mounts); err != nil {
		return err
	}
	r.tryDevices.Do(func() {
		r.nodes = findNodes(state)
		r.anyFile = order.Landlock >= landlock.Refer && !landlock.Refers(state, order.Landlock)
	})
	order.AnyFile = r.anyFile
	switch {
	case r.nodes.outer:
		order.Devices = outerMakes
	case r.nodes.listens:
		order.Devices = guardMakes
	}
	if err := checkDevices(order.Root); err != nil {
		return err
	}
	return runGuarded(ctx, p, order, places.secrets())
}

// notInChroot says that something that was asked for takes what a RUN in a chroot hasn't.
func notInChroot(asked, takes string) error {
	return fmt.Errorf("%s: a RUN with --isolation=chroot hasn't %s: leave it out, or use --isolation=sandbox where the machine allows that (`bob doctor` tells)", asked, takes)
}

// newChrootOrder checks what a chroot can give the process and what it can't.
func newChrootOrder(p *Process) (*chrootOrder, error) {
	switch {
	case p.Insecure:
		return nil, notInChroot("RUN --security=insecure", "namespaces of its own")
	case p.Network == None:
		return nil, notInChroot("RUN --network=none", "a network namespace")
	case p.Network != Host:
		return nil, notInChroot("--network=private", "a network namespace")
	case p.ShmSize > 0:
		return nil, notInChroot("--shm-size", "a file system at /dev/shm")
	case p.Hostname != "":
		return nil, notInChroot("BUILDKIT_SANDBOX_HOSTNAME="+p.Hostname, "a host name of its own")
	}
	root, err := canonical(p.Root)
	if err != nil {
		return nil, err
	}
	limits, err := rlimits(p.Ulimits)
	if err != nil {
		return nil, err
	}
	for _, l := range p.Ulimits {
		var own unix.Rlimit
		if err := unix.Getrlimit(rlimitTypes[l.Name], &own); err != nil || l.Hard > own.Max {
			return nil, errors.Join(err, fmt.Errorf("ulimit %s: hard limit %d is above bob's own, %d: start the container with a higher one", l.Name, l.Hard, own.Max))
		}
	}
	capabilities, err := chrootCapabilities()
	if err != nil {
		return nil, err
	}
	o := &chrootOrder{
		Root: root, Args: p.Args, Env: p.Env, Dir: workingDir(p.Dir),
		UID: p.UID, GID: p.GID, Groups: p.Groups,
		Limits: limits, Capabilities: capabilities, Landlock: landlock.Version(),
	}
	if o.Landlock < landlock.Scopes {
		o.Protected = lineage()
	}
	return o, nil
}

// runGuarded runs the command under a guard and waits for both.
func runGuarded(ctx context.Context, p *Process, order *chrootOrder, secrets []*os.File) error {
	caller := ctx
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	streams, err := openStreams(p)
	if err != nil {
		return err
	}
	finish := func() (err error) {
		for _, s := range streams {
			err = errors.Join(err, s.finish())
		}
		return err
	}
	order.Secrets = len(secrets)
	g, err := startGuard(streams[0].w, streams[len(streams)-1].w, secrets)
	if err != nil {
		return errors.Join(err, finish())
	}
	for _, s := range streams {
		s.start(cancel)
	}
	stop := context.AfterFunc(ctx, g.end)
	result, err := g.wait(order)
	killed := !stop()
	errStreams := finish()
	switch {
	case killed && (err != nil || result.Refused != "" || result.Status.Signal() == unix.SIGKILL):
		if caller.Err() != nil {
			return caller.Err()
		}
		return context.Cause(ctx) // a writer failed
	case err != nil:
		return errors.Join(err, errStreams)
	case result.Refused != "":
		err := errors.New(initFailed + result.Refused)
		if exit := execFailure(err); exit != nil {
			return exit
		}
		return &startError{err}
	}
	return errors.Join(statusError(syscall.WaitStatus(result.Status)), errStreams)
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
	g := &guard{cmd: chrootStage(stageGuard), orders: orderW, result: resultR}
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
func (g *guard) wait(order *chrootOrder) (*chrootResult, error) {
	errSend := gob.NewEncoder(g.orders).Encode(order)
	result := new(chrootResult)
	errReceive := gob.NewDecoder(g.result).Decode(result)
	g.end()
	_ = g.result.Close()
	err := g.cmd.Wait()
	if err == nil && errReceive == nil {
		return result, nil
	}
	// Nobody but root, or the kernel that is out of memory, ends a guard.
	err = fmt.Errorf("the process that guards the command was ended: %w", errors.Join(err, errSend, errReceive))
	return nil, errors.Join(err, killRooted(order.Root))
}

// statusError turns the status of a command into nil or an *ExitError.
func statusError(status syscall.WaitStatus) error {
	switch {
	case status.Signaled():
		return &ExitError{Code: codeSignal + int(status.Signal()), Signal: status.Signal()}
	case status.ExitStatus() != 0:
		return &ExitError{Code: status.ExitStatus()}
	}
	return nil
}

// killRooted ends the processes whose root is the directory, as far as this process
// may see their roots.
func killRooted(root string) error {
	want, err := os.Stat(root)
	if err != nil {
		return err
	}
	for {
		found := false
		for _, pid := range processes() {
			is, err := os.Stat(fmt.Sprintf("/proc/%d/root", pid))
			if err == nil && os.SameFile(is, want) {
				found = unix.Kill(pid, unix.SIGKILL) == nil || found
			}
		}
		if !found {
			return nil
		}
		time.Sleep(killPause)
	}
}

// checkDevices refuses a root file system, in which the command's own /dev is in its
// place, with devices that a command could open where no device cgroup keeps it from the
// machine's disks. No command can make further ones.
func checkDevices(root string) error {
	if devicesBarred(filepath.Dir(root)) {
		return nil
	}
	found, err := findDevice(root)
	if err != nil || found == "" {
		return err
	}
	return fmt.Errorf("run: the image has the device %s outside of /dev, which commands could open: this container has no device cgroup: start it with a container engine, or use another base image", strings.TrimPrefix(found, root))
}

// Limits says what commands lack that others have which are run with Namespaces; nil
// for a Runner that does so.
func (r *Runner) Limits() ([]*obstacle.Obstacle, error) {
	if r.Mode.CanMount() {
		return nil, nil
	}
	limits := []*obstacle.Obstacle{
		{Why: "commands find no /proc but copies of a few of its files, no /sys, no terminals, and no /dev/stdout or /dev/fd"},
		{Why: "commands can't use chroot, raw sockets, or the powers of set-user-ID programs as sudo"},
		{Why: "what is mounted read-only can be written to, in vain; tmpfs mounts are on the disk and have no limit, and secrets are on the disk while a command runs"},
	}
	if o := landlock.MissingScopes("a command that is out for it can end other processes of the container, and reach their abstract sockets"); o != nil {
		limits = append(limits, o)
	}
	dir, err := r.makeState()
	if err != nil {
		return nil, err
	}
	err = makeDevices(filepath.Join(dir, "dev"))
	if info, errStat := os.Stat(filepath.Join(dir, "dev/null")); err == nil && errStat == nil && info.Mode().IsRegular() {
		limits = append(limits, obstacle.New(
			"devices can't be made or opened in "+r.Dir+": commands find a file as /dev/null, and neither /dev/zero nor /dev/urandom",
			"put the cache directory on a file system that is not mounted with nodev, and don't drop CAP_MKNOD",
		))
	}
	return limits, errors.Join(err, os.RemoveAll(dir))
}
