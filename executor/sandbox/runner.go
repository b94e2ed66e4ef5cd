package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/moby/sys/userns"
	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/cgroup"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/sandbox/internal/chroot"
	"github.com/bobbuild/bob/executor/sandbox/internal/emulate"
	"github.com/bobbuild/bob/executor/sandbox/internal/mountpoint"
	"github.com/bobbuild/bob/executor/sandbox/internal/profile"
	"github.com/bobbuild/bob/executor/sandbox/internal/stream"
	"github.com/bobbuild/bob/executor/sandbox/landlock"
	"github.com/bobbuild/bob/executor/sandbox/mountattr"
	"github.com/bobbuild/bob/executor/sandbox/private"
	"github.com/bobbuild/bob/snapshot/owners"
)

// Runner runs processes in containers. Its methods may be called concurrently.
// The process must have entered, see Enter. It must not be copied after use.
type Runner struct {
	// Dir holds the private state of running containers: a few small files
	// each. It is made if missing (mode 0700) and must be on a local disk.
	Dir string
	// Mode is that of this process. With one ID the owners below Root are recorded as by
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
	chroots    chroot.Machine
	// visible is held by each run that can see into the processes of others, and for
	// writing by one that is Private.
	visible sync.RWMutex
}

// Process is a command and its surroundings.
type Process struct {
	// Root is the directory of the root file system, mounted by the caller,
	// and used by no other Run at the same time.
	Root string
	// Args is the command with its arguments. The first is looked up in the
	// PATH of Env, inside Root, unless it has a slash.
	Args []string
	// Env is the whole environment, as name=value. libcontainer adds HOME if
	// it is missing, from Root's /etc/passwd or as "/".
	Env []string
	// Dir is the absolute working directory in the container, "" is "/". As
	// in BuildKit it is made, owned by root with mode 0755, if it is missing.
	Dir string
	// UID and GID are the user, by number; Groups its supplementary groups.
	UID, GID uint32
	Groups   []uint32
	// Hostname is the host name in the container, "" is "bob".
	Hostname string
	// ExtraHosts are further lines of /etc/hosts, as "name:address".
	ExtraHosts []string
	// Network is what the command can reach.
	Network Network
	// Mounts are mounted in order, after those that every container has.
	Mounts []Mount
	// Insecure gives the command every capability that bob has itself, whatever
	// its user, and takes the confinement away: no seccomp filter, no masked
	// or read-only path, a writable /sys and, outside of user namespaces, the
	// devices of the host.
	Insecure bool
	// Private has the run wait for those of the same Runner that could see into its
	// processes, and them for it: its environment or its files are a secret. That
	// is only where the outer /proc is bound, see the package documentation.
	Private bool
	// ShmSize is the size of /dev/shm in bytes, 0 is 64 MiB.
	ShmSize int64
	// Ulimits are resource limits; those not named are bob's own.
	Ulimits []Ulimit
	// Stdout and Stderr receive the output in chunks as it comes, each from
	// its own goroutine unless they are the same writer; nil discards it.
	// Nothing is written after Run has returned. When a write fails the
	// command is killed. The standard input is empty.
	Stdout, Stderr io.Writer
	// Restored is set by Run with Chroot: the paths, relative to Root, of what
	// was changed for the run and is again as it was in all but the time of its
	// last change (st_ctime).
	Restored []string
}

// hostname returns the host name of the container.
func (p *Process) hostname() string {
	if p.Hostname == "" {
		return defaultHostname
	}
	return p.Hostname
}

// fallback is a set of things that the machine refuses, see the package
// documentation.
type fallback uint32

const (
	boundProc  fallback = 1 << iota // no new proc file system
	boundSys                        // no new sysfs
	movedRoot                       // no pivot_root
	sharedUser                      // no user namespace below bob's
)

// refusedBy returns the fallback that avoids the error of a container that
// could not be started, 0 if there is none. libcontainer's init is another
// process and sends its errors as text.
func refusedBy(err error) fallback {
	var start *startError
	if !errors.As(err, &start) {
		return 0
	}
	text := start.Error()
	refused := strings.Contains(text, unix.EPERM.Error()) || strings.Contains(text, unix.ENOSYS.Error())
	switch {
	case refused && strings.Contains(text, `error mounting "proc" to rootfs`):
		return boundProc
	case refused && strings.Contains(text, `error mounting "sysfs" to rootfs`):
		return boundSys
	case strings.Contains(text, "pivot_root .:") && (refused || strings.Contains(text, unix.EINVAL.Error())):
		return movedRoot
	}
	return 0
}

// startError says that a container could not be started. The command did not
// run.
type startError struct{ err error }

func (e *startError) Error() string { return "start container: " + e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

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
		return r.runChroot(ctx, p)
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

// check reports what no container can be made of.
func (p *Process) check() error {
	switch {
	case p.Root == "":
		return errors.New("run: no root file system")
	case len(p.Args) == 0 || p.Args[0] == "":
		return errors.New("run: no command")
	case p.Dir != "" && !strings.HasPrefix(p.Dir, "/"):
		return fmt.Errorf("run: working directory %s is not absolute", p.Dir)
	}
	for _, m := range p.Mounts {
		if m.Kind == Bind && !filepath.IsAbs(m.Source) || !filepath.IsAbs(m.Target) {
			return fmt.Errorf("run: mount of %s on %s: want absolute paths", m.Source, m.Target)
		}
	}
	return nil
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
	emulation, err := r.startEmulation(p, state, config.Namespaces.Contains(configs.NEWUSER))
	if err != nil {
		return err
	}
	if emulation != nil {
		defer clean(emulation.Stop)
		if config.Seccomp == nil {
			if config.Seccomp, err = profile.OpenFilter(); err != nil {
				return err
			}
		}
		config.Seccomp = emulation.Filter(config.Seccomp)
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
	container, err := newContainer(state, id, config)
	if err != nil {
		return fmt.Errorf("create container: %w", err)
	}
	defer clean(container.Destroy)
	err = r.runIn(ctx, container, p)
	if exit, ended := errors.AsType[*ExitError](err); ended {
		exit.Limit = group.Reached(exit.Signal != 0)
	}
	if caller.Err() == nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// startEmulation starts what answers calls of a command in the kernel's place; nested says
// that the command gets a user namespace of its own. Where the kernel, or another bob, does
// all that they ask for it returns nil.
func (r *Runner) startEmulation(p *Process, state string, nested bool) (*emulate.Emulation, error) {
	if r.Mode.OneID {
		return emulate.Start(state, emulate.User{UID: p.UID, GID: p.GID, Groups: p.Groups})
	}
	r.tryDevices.Do(func() { r.nodes = emulate.FindNodes(state) })
	if !r.nodes.Wanted(nested || r.Devices == owners.Stubs) {
		return nil, nil //nolint:nilnil // documented result
	}
	return emulate.StartDevices(state, cmp.Or(r.Devices, owners.Devices), p.Insecure)
}

// canonical returns the absolute path of the root file system, free of
// symlinks as libcontainer wants it.
func canonical(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("find root file system: %w", err)
	}
	return abs, nil
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

// settleForks waits until every child that another goroutine is forking has
// executed. Until then the child holds copies of descriptors that this one has
// closed meanwhile, and the caller could not unmount the root file system.
func settleForks() {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
}

// runIn runs the process in the container, on a thread of its own.
func (r *Runner) runIn(ctx context.Context, container *libcontainer.Container, p *Process) error {
	done := make(chan error, 1)
	go func() {
		// The kernel sends the container its parent death signal when the thread that
		// forked it ends, and what restricts the thread restricts the container. It is
		// never unlocked: it ends with this goroutine, when the container is gone.
		runtime.LockOSThread()
		if !p.Insecure {
			if err := landlock.ConfineScopes(); err != nil {
				done <- fmt.Errorf("confine command by Landlock: %w", err)
				return
			}
		}
		done <- r.runOnThread(ctx, container, p)
	}()
	return <-done
}

// runOnThread is runIn on the thread that the container descends from.
func (r *Runner) runOnThread(ctx context.Context, container *libcontainer.Container, p *Process) error {
	caller := ctx
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fmt.Errorf("open standard input: %w", err)
	}
	defer func() { _ = null.Close() }()
	output, err := stream.Open(p.Stdout, p.Stderr)
	if err != nil {
		return err
	}
	process := &libcontainer.Process{
		Init: true,
		Args: p.Args,
		Env:  p.Env,
		UID:  int(p.UID), GID: int(p.GID),
		AdditionalGroups: groups(p.Groups),
		Cwd:              workingDir(p.Dir),
		Stdin:            null,
		Stdout:           output.Stdout(),
		Stderr:           output.Stderr(),
	}
	if r.Mode.OneID {
		// The only one there is. That of p is the command's as soon as it is executed.
		process.UID, process.GID, process.AdditionalGroups = 0, 0, nil
	}
	err = container.Run(process)
	if err != nil {
		_ = output.Finish()
		return errors.Join(startFailure(ctx, err), reap(process))
	}
	output.Start(cancel)
	stop := context.AfterFunc(ctx, func() {
		// Its being the first of a PID namespace, all others die with it. The
		// container's own Signal would look in /proc first whether it runs,
		// and do nothing when that fails. An error says that it has ended.
		_ = process.Signal(unix.SIGKILL)
	})
	err = exitStatus(process.Wait())
	killed := !stop()
	err = errors.Join(err, output.Finish())
	var exit *ExitError
	if killed && errors.As(err, &exit) && exit.Signal == unix.SIGKILL {
		if caller.Err() != nil {
			return caller.Err()
		}
		return context.Cause(ctx) // a writer failed
	}
	return err
}

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

// reap kills and waits for what a failed start may have left running.
func reap(process *libcontainer.Process) error {
	if err := process.Signal(unix.SIGKILL); err != nil {
		return nil //nolint:nilerr // nothing runs
	}
	var exit *exec.ExitError
	if _, err := process.Wait(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("wait for container: %w", err)
	}
	return nil
}

// groups converts supplementary groups. It never returns nil: the groups of
// bob itself are not the command's.
func groups(gids []uint32) []int {
	converted := make([]int, 0, len(gids))
	for _, g := range gids {
		converted = append(converted, int(g))
	}
	return converted
}

// workingDir returns the working directory.
func workingDir(dir string) string {
	if dir == "" {
		return "/"
	}
	return dir
}
