package chroot

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runc/libcontainer/capabilities"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/internal/filter"
	"github.com/bobbuild/bob/executor/sandbox/internal/profile"
	"github.com/bobbuild/bob/executor/sandbox/landlock"
)

// The descriptors of the process that becomes the command.
const (
	commandOrder  = 3
	commandReport = 4
	commandNodes  = 5
)

// runCommand becomes the command. It returns if that can't be executed.
func runCommand() error {
	report := os.NewFile(commandReport, "report")
	name, order, err := prepareCommand(os.NewFile(commandOrder, "order"))
	if err != nil {
		_, _ = io.WriteString(report, err.Error())
		os.Exit(1)
	}
	return &os.PathError{Op: "exec", Path: name, Err: unix.Exec(name, order.Args, order.Env)}
}

// prepareCommand confines this thread and returns what it is to execute.
func prepareCommand(orders io.Reader) (string, *order, error) {
	if err := closeOnExec(); err != nil {
		return "", nil, err
	}
	order := new(order)
	if err := gob.NewDecoder(orders).Decode(order); err != nil {
		return "", nil, fmt.Errorf("read order: %w", err)
	}
	unix.Umask(order.Umask)
	for _, l := range order.Rlimits {
		if err := unix.Setrlimit(l.Type, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return "", nil, fmt.Errorf("set resource limit %d: %w", l.Type, err)
		}
	}
	// It reads /proc.
	caps, err := capabilities.New(profile.Sets(order.Capabilities, order.UID))
	if err != nil {
		return "", nil, fmt.Errorf("list capabilities: %w", err)
	}
	if err := order.enterRoot(); err != nil {
		return "", nil, err
	}
	if err := emptyInput(); err != nil {
		return "", nil, err
	}
	order.addHome()
	if err := order.confine(caps); err != nil {
		return "", nil, err
	}
	name, err := lookPath(order.Args[0], order.Env)
	if err != nil {
		return "", nil, err
	}
	return name, order, order.loadFilters()
}

// enterRoot goes to the working directory in the root file system. From here on
// this thread reaches no other file: it has no descriptor of a directory, and
// Landlock, where there is one, knows only those below the root.
func (o *order) enterRoot() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if err := unix.Chdir(o.Root); err != nil {
		return &os.PathError{Op: "chdir", Path: o.Root, Err: err}
	}
	if err := landlock.Confine(".", o.Landlock, !o.AnyFile); err != nil {
		return fmt.Errorf("confine to root file system by Landlock: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return &os.PathError{Op: "chroot", Path: o.Root, Err: err}
	}
	if err := unix.Chdir("/"); err != nil {
		return &os.PathError{Op: "chdir", Path: "/", Err: err}
	}
	dir, err := securejoin.SecureJoin("/", o.Dir) // links may lead to what is to be made
	if err == nil {
		err = os.MkdirAll(dir, 0o755) //nolint:gosec // as an image's
	}
	if err != nil {
		return fmt.Errorf("make working directory: %w", err)
	}
	if err := unix.Chdir(dir); err != nil {
		return &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	return nil
}

// emptyInput gives this process a standard input of the root file system: through
// bob's own the command could change the mode of the machine's /dev/null.
func emptyInput() error {
	var st unix.Stat_t
	fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			return os.NewSyscallError("pipe2", err)
		}
		fd = p[0]
		_ = unix.Close(p[1])
	}
	return os.NewSyscallError("dup3", unix.Dup3(fd, 0, 0))
}

// addHome adds HOME to the environment as libcontainer does.
func (o *order) addHome() {
	for _, kv := range o.Env {
		if strings.HasPrefix(kv, "HOME=") {
			return
		}
	}
	home := "/"
	if info, err := os.Stat("/etc/passwd"); err == nil && info.Mode().IsRegular() {
		if u, err := user.LookupUid(int(o.UID)); err == nil && u.Home != "" {
			home = u.Home
		}
	}
	o.Env = append(o.Env, "HOME="+home)
}

// confine changes the user of this thread and takes its powers.
func (o *order) confine(caps *capabilities.Caps) error {
	// Without CAP_SETPCAP it can't be done, nor need be: no_new_privs is set.
	if err := caps.ApplyBoundingSet(); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := syscall.Setgroups(o.Groups); err != nil {
		return os.NewSyscallError("setgroups", err)
	}
	if err := syscall.Setresgid(int(o.GID), int(o.GID), int(o.GID)); err != nil {
		return os.NewSyscallError("setresgid", err)
	}
	if err := syscall.Setresuid(int(o.UID), int(o.UID), int(o.UID)); err != nil {
		return os.NewSyscallError("setresuid", err)
	}
	if err := caps.ApplyCaps(); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	// The change of the user has cleared it.
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0))
}

// lookPath finds the command in the PATH of env.
func lookPath(name string, env []string) (string, error) {
	os.Clearenv()
	for _, kv := range env {
		if path, found := strings.CutPrefix(kv, "PATH="); found {
			if err := os.Setenv("PATH", path); err != nil {
				return "", err
			}
		}
	}
	found, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Clean(found), nil
}

// loadFilters loads the seccomp filters into this thread.
func (o *order) loadFilters() error {
	filters, err := o.filters()
	if err != nil {
		return err
	}
	for _, f := range filters {
		compiled, err := filter.Compile(f)
		if err != nil {
			return err
		}
		listener, err := compiled.Load()
		if err != nil {
			return err
		}
		if listener >= 0 {
			// It is closed when the command is executed.
			if err := unix.Sendmsg(commandNodes, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
				return fmt.Errorf("send descriptor of the seccomp filter: %w", err)
			}
		}
	}
	return nil
}
