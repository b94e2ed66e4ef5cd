package sandbox

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/sys/user"
	"github.com/opencontainers/runc/libcontainer/capabilities"
	"github.com/opencontainers/runc/libcontainer/seccomp"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/sandbox/landlock"
)

// chrootVariable is the environment variable that makes a process one of those of
// a command in a chroot. It has no other.
const chrootVariable = "_BOB_CHROOT"

// Its values.
const (
	stageGuard   = "guard"
	stageCommand = "command"
)

// chrootStage returns a command that runs this executable as one of those
// processes, in a session of its own.
func chrootStage(stage string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe") //nolint:noctx // ended by its pipe or its parent
	cmd.Env = []string{chrootVariable + "=" + stage}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// runChrootStage is one of those processes. It returns the exit status.
func runChrootStage(stage string) int {
	// What is set below is the thread's, as is the parent death signal of a child.
	runtime.LockOSThread()
	var err error
	switch stage {
	case stageGuard:
		err = runGuard()
	case stageCommand:
		err = runCommand()
	default:
		err = errors.New("unknown stage " + stage)
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return 255 // as libcontainer's init
}

// runGuard is the guard. It leaves no process behind, and no secret.
func runGuard() error {
	orders, out := os.NewFile(guardOrders, "orders"), os.NewFile(guardResult, "result")
	if err := closeOnExec(); err != nil {
		return err
	}
	var order chrootOrder
	if err := gob.NewDecoder(orders).Decode(&order); err != nil {
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
	result, err := guardCommand(&order, orders, nodes)
	if err := errors.Join(err, endChildren(), nodes.stop()); err != nil {
		return err
	}
	wipeSecrets(order.Secrets)
	return gob.NewEncoder(out).Encode(result)
}

// guardCommand starts the command and waits for it.
func guardCommand(order *chrootOrder, orders io.Reader, nodes *nodeMaker) (*chrootResult, error) {
	orderR, orderW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	reportR, reportW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := chrootStage(stageCommand)
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
	result := &chrootResult{Refused: string(refused)}
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

// killPause is how long killed processes are given to be gone.
const killPause = time.Millisecond

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

// killChildren kills the descendants of this process.
func killChildren() {
	parents := make(map[int]int)
	for _, pid := range processes() {
		parents[pid] = parentOf(pid)
	}
	for pid := range parents {
		for p := parents[pid]; p > 0; p = parents[p] {
			if p == os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
				break
			}
		}
	}
}

// processes returns the IDs of all processes that can be seen.
func processes() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	names, _ := dir.Readdirnames(-1) // what could be read counts
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parentOf returns the parent of a process, 0 if there is none. It is the second
// field after the name in proc_pid_stat(5), which anybody may read.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// lineage returns this process, those that it descends from, and the process groups that
// they are in, whose leaders may be gone.
func lineage() []int {
	var pids []int
	for pid := os.Getpid(); pid > 0; pid = parentOf(pid) {
		pids = append(pids, pid)
		if group, err := unix.Getpgid(pid); err == nil && group > 0 {
			pids = append(pids, group)
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

// wipeSecrets empties the files of secrets, wherever the command moved them.
func wipeSecrets(count int) {
	for fd := guardSecrets; fd < guardSecrets+count; fd++ {
		_ = wipe(fd)
	}
}

// wipeLimit bounds how much of a file is overwritten: the command may have written
// to it, too.
const wipeLimit = 1 << 20

// wipe overwrites a file with zeros, and empties it.
func wipe(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if _, err := unix.Pwrite(fd, make([]byte, min(st.Size, wipeLimit)), 0); err != nil {
		return err
	}
	return unix.Ftruncate(fd, 0)
}

// closeOnExec has every descriptor but the standard ones closed when this process
// executes a program.
func closeOnExec() error {
	if unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	entries, err := os.ReadDir("/proc/self/fd") // before Linux 5.11, or refused
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

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
func prepareCommand(orders io.Reader) (string, *chrootOrder, error) {
	if err := closeOnExec(); err != nil {
		return "", nil, err
	}
	order := new(chrootOrder)
	if err := gob.NewDecoder(orders).Decode(order); err != nil {
		return "", nil, fmt.Errorf("read order: %w", err)
	}
	unix.Umask(containerUmask)
	for _, l := range order.Limits {
		if err := unix.Setrlimit(l.Type, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return "", nil, fmt.Errorf("set resource limit %d: %w", l.Type, err)
		}
	}
	// It reads /proc.
	caps, err := capabilities.New(processCapabilities(order.Capabilities, order.UID))
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
func (o *chrootOrder) enterRoot() error {
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
// that of bob the command could change the mode of the machine's /dev/null.
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
func (o *chrootOrder) addHome() {
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
func (o *chrootOrder) confine(caps *capabilities.Caps) error {
	// Without CAP_SETPCAP it can't be done, nor need be: no_new_privs is set.
	if err := caps.ApplyBoundingSet(); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	if err := syscall.Setgroups(groups(o.Groups)); err != nil {
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
func (o *chrootOrder) loadFilters() error {
	filters, err := o.filters()
	if err != nil {
		return err
	}
	for _, f := range filters {
		listener, err := seccomp.InitSeccomp(f)
		if err == nil && listener >= 0 {
			// It is closed when the command is executed.
			err = unix.Sendmsg(commandNodes, []byte{0}, unix.UnixRights(listener), nil, 0)
		}
		if err != nil {
			return fmt.Errorf("load seccomp filter: %w", err)
		}
	}
	return nil
}
