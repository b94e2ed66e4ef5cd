package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/moby/sys/userns"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/cgroup"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
	"github.com/bobbuild/bob/executor/sandbox/internal/chroot"
	"github.com/bobbuild/bob/executor/sandbox/internal/emulate"
	"github.com/bobbuild/bob/executor/sandbox/internal/mountpoint"
	"github.com/bobbuild/bob/executor/sandbox/mountattr"
	"github.com/bobbuild/bob/executor/sandbox/private"
	"github.com/bobbuild/bob/snapshot/owners"
)

// Runner runs processes in containers. Its methods may be called concurrently.
// The process must have entered its Mode, see package isolation. A Runner must not be copied
// after use.
type Runner struct {
	// Dir holds the private state of running containers: a few small files
	// each. It is made if missing (mode 0700) and must be on a local disk.
	Dir string
	// Mode is the mode of this process. With one ID the owners below Root are recorded as by
	// package owners, and so are those that commands set.
	Mode isolation.Mode
	// Devices is how device nodes are made for commands where the kernel refuses them:
	// as those of the file system that Root is. The zero value is [owners.Devices].
	Devices owners.Keeper
	// Limiter bounds each run; nil doesn't.
	Limiter *cgroup.Limiter
	// Notice, if not nil, is told once each, in a sentence, what isolates less than on
	// other machines. It is called from within Run.
	Notice func(text string)
	// Copy copies a file or directory to a path where nothing is, with the owners
	// and modes of all that is in it. Mounts take it with Chroot, else it may be nil.
	Copy func(ctx context.Context, from, to string) error

	refused    atomic.Uint32 // the fallbacks found necessary
	tryNesting sync.Once
	tryDevices sync.Once
	nodes      emulate.Nodes
	filters    filters
	chroots    chroot.Machine
	// visible is held by each run that can see into the processes of others, and for
	// writing by one that is Private.
	visible sync.RWMutex
}

// Run runs the process and waits until it and all that it started are gone.
// It returns nil when the command succeeded, an *ExitError when it did not or
// could not be executed, and ctx.Err() when ctx ended it, which kills the whole
// tree. Any other error is the machine's or the caller's fault.
func (r *Runner) Run(ctx context.Context, p *Process) error {
	if err := p.check(); err != nil {
		return err
	}
	limits := currentLimits(p)
	return limits.explain(r.runIsolated(ctx, p))
}

// SeesOthers reports whether commands have been found to see the processes of others, since
// this machine lets bob mount no /proc of its own.
func (r *Runner) SeesOthers() bool { return fallback(r.refused.Load())&boundProc != 0 }

// runIsolated is Run of a process that has been checked.
func (r *Runner) runIsolated(ctx context.Context, p *Process) error {
	switch {
	case !r.Mode.CanRun():
		return fmt.Errorf("run: no command can be run with --isolation=%s", r.Mode.Isolation)
	case !r.Mode.CanMount():
		return r.runChrooted(ctx, p)
	}
	for _, m := range p.Mounts {
		if chroot.Opened(m.Source) {
			return fmt.Errorf("run: mount of %s on %s: only a chroot can have it", m.Source, m.Target)
		}
	}
	r.tryNesting.Do(func() {
		if !nests() {
			r.refused.Or(uint32(sharedUser))
			if r.Notice != nil {
				r.Notice("a RUN has bob's own user namespace, since this machine lets bob make none: with the network of the machine it can open neither raw sockets nor ports below 1024 (`bob doctor` tells what to do)")
			}
		}
	})
	for {
		refused := r.refused.Load()
		err := r.runHidden(ctx, p, fallback(refused))
		next := uint32(refusedBy(err))
		if next&^refused == 0 {
			return err
		}
		if before := r.refused.Or(next); fallback(next&^before)&boundProc != 0 && r.Notice != nil {
			r.Notice("processes are visible: a RUN sees those of others that run beside it, since this machine lets bob mount no /proc of its own (`bob doctor` tells what to do)")
		}
	}
}

// runChrooted is Run where nothing can be mounted.
func (r *Runner) runChrooted(ctx context.Context, p *Process) (err error) {
	if r.Limiter != nil {
		return fmt.Errorf("%w, or limit the container that bob runs in", notInChroot("--memory, --cpus and --pids-limit", "a cgroup of its own"))
	}
	state, err := r.makeState()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	return runChroot(ctx, &r.chroots, p, state, r.Copy)
}

// Limits says what commands lack that others have which are run in a sandbox; nil for a
// Runner that does so.
func (r *Runner) Limits() ([]*obstacle.Obstacle, error) {
	if r.Mode.CanMount() {
		return nil, nil
	}
	dir, err := r.makeState()
	if err != nil {
		return nil, err
	}
	limits, err := chroot.Limits(dir)
	return limits, errors.Join(err, os.RemoveAll(dir))
}

// runHidden runs the process when nothing else runs that may not see it.
func (r *Runner) runHidden(ctx context.Context, p *Process, refused fallback) error {
	switch {
	case refused&boundProc == 0:
	case p.Private:
		r.visible.Lock()
		defer r.visible.Unlock()
	case p.Insecure, refused&sharedUser != 0:
		r.visible.RLock()
		defer r.visible.RUnlock()
	}
	if err := ctx.Err(); err != nil {
		return err // while it waited
	}
	return r.run(ctx, p, refused)
}

// run is one attempt at Run. Everything that it makes it also removes, in
// reverse.
func (r *Runner) run(ctx context.Context, p *Process, refused fallback) (err error) {
	root, err := canonical(p.Root)
	if err != nil {
		return err
	}
	state, err := r.makeState()
	if err != nil {
		return err
	}
	defer settleForks()
	clean := func(undo func() error) { err = errors.Join(err, undo()) }
	defer clean(func() error { return os.RemoveAll(state) })

	userNS := userns.RunningInUserNS()
	if !userNS && !p.Insecure {
		unmount, errMount := forbidDevices(root)
		if errMount != nil {
			return errMount
		}
		defer clean(unmount)
	}
	caller := ctx
	var own *private.Network
	server := ""
	if p.Network == Private {
		if own, err = private.Open(ctx, state); err != nil {
			return err
		}
		defer clean(own.Close)
		server = own.Resolver
		watched, stop := own.Watch(ctx)
		defer stop()
		ctx = watched
	}
	etc, err := writeHostFiles(state, p.hostname(), p.ExtraHosts, server)
	if err != nil {
		return err
	}
	points, err := mountpoint.Open(root)
	if err != nil {
		return err
	}
	defer clean(points.Remove)
	memory := &memoryFiles{dir: filepath.Join(state, "memory"), owners: owners.Recording(r.Mode.OneID)}
	defer clean(memory.remove)
	sys := "/sys"
	if p.Network == Host && p.nested(refused) && !userNS {
		var unmount func() error
		sys, unmount = mountSys(state)
		defer clean(unmount)
	}
	mounts, err := placeMounts(points, systemMounts(p, userNS, sys, refused), etc, p.Mounts, memory)
	if err != nil {
		return err
	}
	if mounts, err = withoutAttributes(mounts); err != nil {
		return err
	}
	id := "bob-" + filepath.Base(state)
	config, err := newConfig(p, id, root, mounts, own, refused)
	if err != nil {
		return err
	}
	emulation, err := r.emulation(p, state, config.Namespaces.Contains(configs.NEWUSER))
	if err != nil {
		return err
	}
	if emulation != nil {
		defer clean(emulation.Stop)
	}
	calls, err := r.filters.of(p, refused, emulation)
	if err != nil {
		return err
	}
	group, err := r.Limiter.Group(id)
	if err != nil {
		return err
	}
	defer clean(group.Remove)
	if group != nil {
		// By the time that the command is executed the process may be another
		// user's, whom cgroup v1 doesn't let bob move.
		config.Hooks = configs.Hooks{configs.CreateRuntime: {configs.NewFunctionHook(func(s *specs.State) error { return group.Join(s.Pid) })}}
	}
	containers, unmount, err := mountContainers(state)
	if err != nil {
		return err
	}
	defer clean(unmount)
	container, err := newContainer(containers, id, config)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	defer clean(container.Destroy)
	err = runIn(ctx, container, p, entrance{calls, emulation}, r.Mode.OneID)
	if exit, ended := errors.AsType[*ExitError](err); ended {
		exit.Limit = group.Reached(exit.Signal != 0)
	}
	if caller.Err() == nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// emulation returns what answers calls of a command in the kernel's place; nested says
// that the command gets a user namespace of its own. Where the kernel, or another bob, does
// all that they ask for it returns nil.
func (r *Runner) emulation(p *Process, state string, nested bool) (*emulate.Emulation, error) {
	if r.Mode.OneID {
		return emulate.Owners(emulate.User{UID: p.UID, GID: p.GID, Groups: p.Groups})
	}
	r.tryDevices.Do(func() { r.nodes = emulate.FindNodes(state) })
	if !r.nodes.Wanted(nested || r.Devices == owners.Stubs) {
		return nil, nil
	}
	return emulate.Devices(cmp.Or(r.Devices, owners.Devices), p.Insecure)
}

// makeState makes the directory of one container's state.
func (r *Runner) makeState() (string, error) {
	dir, err := filepath.Abs(r.Dir)
	if err != nil {
		return "", fmt.Errorf("make state directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make state directory: %w", err)
	}
	state, err := os.MkdirTemp(dir, "run")
	if err != nil {
		return "", fmt.Errorf("make state directory: %w", err)
	}
	return state, nil
}

// forbidDevices mounts root over itself with nodev and returns how to undo it.
// Outside of user namespaces that is what keeps a command with CAP_MKNOD from
// the disks of the host.
func forbidDevices(root string) (undo func() error, err error) {
	if err := unix.Mount(root, root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return nil, &os.PathError{Op: "bind", Path: root, Err: err}
	}
	undo = func() error {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			return &os.PathError{Op: "unmount", Path: root, Err: err}
		}
		return nil
	}
	if err := mountattr.Restrict(root, unix.MOUNT_ATTR_NODEV); err != nil {
		return nil, errors.Join(fmt.Errorf("forbid devices in %s: %w", root, err), undo())
	}
	return undo, nil
}
