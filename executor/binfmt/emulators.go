// Package binfmt makes commands of other architectures than this machine's run, by
// emulators that are registered with the kernel's binfmt_misc.
//
// To find out what the machine has registered, bob executes a small program in a root that
// holds nothing else, which takes the flag F. If that fails, since Linux 6.7, bob registers
// emulators in an instance of its own user namespace. It is mounted nowhere: a descriptor
// of bob's keeps it. A command can neither see nor change it, but
// an insecure one, which stays in bob's namespace, can mount it.
//
// QEMU makes the system calls of its program itself, so that seccomp filters and the
// answers that a sandbox gives in the kernel's place are the same. It shows in /proc/PID/cmdline and
// /proc/PID/exe of other processes.
package binfmt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
)

// Emulators make commands of other architectures than this machine's run, by emulators
// that are registered with the kernel's binfmt_misc. They use what the machine has
// registered if that works in a root file system that doesn't hold the emulator. Otherwise
// they register QEMU's in an instance of binfmt_misc for bob's user namespace, which the
// kernel allows since Linux 6.7. It counts for that namespace and those below it, in place
// of the machine's, and nobody outside sees it. So bob has to be in a user namespace of its
// own. The methods may be called concurrently.
type Emulators struct {
	// Dir is where a directory may be made for a moment, on a file system from which
	// programs can be executed.
	Dir string
	// Mode is the mode of this process.
	Mode *isolation.Mode
	// Paths are the emulators to use, by Go's name of the architecture, whatever the
	// machine has. Of others, the first of qemu-ARCH-static and qemu-ARCH in PATH is used,
	// by QEMU's name of the architecture.
	Paths map[string]string

	mu sync.Mutex
	// own is the instance, a directory in no mount namespace: nothing but this
	// descriptor leads there, and with it goes what is registered.
	own   *os.File
	ready map[string]bool // architectures whose commands run
}

// An ArchitectureError says why commands of an architecture can't be run.
type ArchitectureError struct {
	Architecture string // as Go calls it
	Obstacle     *obstacle.Obstacle
}

// Error returns the obstacle.
func (e *ArchitectureError) Error() string { return e.Obstacle.Error() }

// Unwrap returns the obstacle.
func (e *ArchitectureError) Unwrap() error { return e.Obstacle }

// Prepare makes commands of these architectures, by Go's names for them, run from now on,
// beside the architectures of earlier calls. It returns an *ArchitectureError for the first
// that can't run. It leaves architectures that it doesn't know to the kernel.
func (e *Emulators) Prepare(ctx context.Context, architectures []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var wanted []*architecture
	for i, name := range architectures {
		if a := foreign(name); a != nil && !e.ready[name] && !slices.Contains(architectures[:i], name) {
			wanted = append(wanted, a)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	err := e.prepare(ctx, wanted)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if e.ready == nil {
		e.ready = make(map[string]bool)
	}
	for _, a := range wanted {
		e.ready[a.name] = true
	}
	return nil
}

// prepare is Prepare for architectures that are not prepared yet.
func (e *Emulators) prepare(ctx context.Context, wanted []*architecture) error {
	dir, err := os.MkdirTemp(e.Dir, "try-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(dir) }()
	if e.own == nil {
		lacking, why := e.lacking(ctx, dir, wanted)
		if lacking == nil {
			return nil
		}
		if o := e.open(dir, why); o != nil {
			return &ArchitectureError{lacking.name, lacking.howElse(o)}
		}
	}
	for _, a := range wanted {
		if err := e.register(ctx, dir, a); err != nil {
			return &ArchitectureError{a.name, a.howElse(err)}
		}
	}
	return nil
}

// lacking returns the first of the architectures that the machine doesn't run, and
// why; nil if it runs all.
func (e *Emulators) lacking(ctx context.Context, dir string, all []*architecture) (*architecture, error) {
	for _, a := range all {
		if path := e.Paths[a.name]; path != "" {
			return a, fmt.Errorf("%s was named for it", path)
		}
		if err := a.try(ctx, dir); err != nil {
			return a, err
		}
	}
	return nil, nil
}

// open makes the instance, unless it may not or an earlier call has relied on the
// machine's. why is what it takes one for.
func (e *Emulators) open(dir string, why error) *obstacle.Obstacle {
	switch {
	case !e.Mode.CanMount():
		return obstacle.New(why.Error()+", and in "+e.Mode.String()+" bob can't register an emulator", "")
	case !e.Mode.OwnUser:
		return obstacle.New(why.Error()+", and what root registers counts for the whole machine", "give --rootless, with which bob registers one that counts for the build alone")
	case len(e.ready) > 0:
		return obstacle.New(why.Error()+", which an ONBUILD trigger asks for when others run by the machine's emulators already", "")
	}
	var err error
	if e.own, err = openBinfmt(dir); err != nil {
		return obstacle.New(why.Error()+", and bob can't register an emulator of its own, for which it takes Linux 6.7: "+err.Error(), "")
	}
	return nil
}

// openBinfmt mounts the binfmt_misc of this user namespace and returns its root, the
// mount being nowhere any more. dir is an empty directory.
func openBinfmt(dir string) (*os.File, error) {
	const kind = "binfmt_misc"
	if err := unix.Mount(kind, dir, kind, unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, ""); err != nil {
		return nil, os.NewSyscallError("mount "+kind, err)
	}
	root, err := os.Open(dir)
	return root, errors.Join(err, os.NewSyscallError("unmount "+kind, unix.Unmount(dir, unix.MNT_DETACH)))
}

// register has commands of a run, by an emulator in bob's instance unless they do so
// without one.
func (e *Emulators) register(ctx context.Context, dir string, a *architecture) error {
	path := e.Paths[a.name]
	if path == "" {
		why := a.try(ctx, dir)
		if why == nil {
			return nil
		}
		var err error
		if path, err = a.find(); err != nil {
			return fmt.Errorf("%w, and %w", why, err)
		}
	}
	// The kernel opens the emulator now (F), since it isn't in the root file system of
	// a RUN, hands it the command opened (O), and gives it the rights of that, which
	// may be set-user-ID (C). It hands on argv[0] (P) unless that is more than the
	// emulator understands.
	err := e.add(a, path, "POCF")
	if err == nil {
		err = a.try(ctx, dir)
	}
	if errors.Is(err, errArguments) {
		if err = e.remove(a); err == nil {
			err = e.add(a, path, "OCF")
		}
		if err == nil {
			err = a.try(ctx, dir)
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNotThere):
		err = errors.New("it is linked dynamically")
	}
	_ = e.remove(a)
	return fmt.Errorf("the emulator %s doesn't run programs in a RUN: %w", path, err)
}

// find returns the path of an emulator.
func (a *architecture) find() (string, error) {
	for _, name := range []string{"qemu-" + a.qemu + "-static", "qemu-" + a.qemu} {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("qemu-%s-static isn't in PATH", a.qemu)
}

// entry is the name under which an emulator is registered.
func (a *architecture) entry() string { return "bob-" + a.name }

// add registers an emulator, as the kernel's
// Documentation/admin-guide/binfmt-misc.rst tells.
func (e *Emulators) add(a *architecture, path, flags string) error {
	magic, mask := a.pattern()
	// The separator is what the text begins with, and is in no part of it.
	const separator = "\x1f"
	line := strings.Join([]string{"", a.entry(), "M", "0", escaped(magic[:]), escaped(mask[:]), path, flags}, separator)
	return e.write("register", line)
}

// escaped returns b as the kernel reads it.
func escaped(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, `\x%02x`, c)
	}
	return s.String()
}

// remove removes what add registered, if it is there.
func (e *Emulators) remove(a *architecture) error {
	err := e.write(a.entry(), "-1")
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// write writes text to a file of the instance, at once as the kernel wants it.
func (e *Emulators) write(name, text string) error {
	fd, err := unix.Openat(int(e.own.Fd()), name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "binfmt_misc/" + name, Err: err}
	}
	_, err = unix.Write(fd, []byte(text))
	return errors.Join(os.NewSyscallError("write binfmt_misc/"+name, err), unix.Close(fd))
}

// howElse returns why commands of a don't run, with what to do.
func (a *architecture) howElse(why error) *obstacle.Obstacle {
	o := &obstacle.Obstacle{Why: why.Error()}
	if found := new(obstacle.Obstacle); errors.As(why, &found) {
		*o = *found
	}
	if o.Fix == "" {
		o.Fix = fmt.Sprintf("install static emulators with `apt-get install --no-install-recommends qemu-user-static` (Debian, Ubuntu) or `dnf install qemu-user-static` (Fedora, RHEL), "+
			"or name one with --emulator %s=/path/to/qemu-%s-static, or have root register one on the machine, with the flag F", a.name, a.qemu)
	}
	return o
}

// Close takes back what was registered. Nothing may run any more.
func (e *Emulators) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.own == nil {
		return nil
	}
	err := e.own.Close()
	e.own, e.ready = nil, nil
	return err
}
