package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An Invocation is one run of a program as the lab's user.
type Invocation struct {
	Program string   // "" = bob
	Args    []string // without the program
	Dir     string   // working directory; also where home and cache lie unless Home, Cache say otherwise
	Home    string   // "" = Dir/home
	Cache   string   // BOB_CACHE_DIR; "" = Dir/cache
	Env     []string // on top of HOME, BOB_CACHE_DIR, BOB_RETRY_FOR and a PATH
	Stdin   io.Reader
	Stderr  io.Writer // gets a copy of standard error as it comes, if set
	Trace   *Trace    // writes system calls down, if set
}

// A Result is how an Invocation ended.
type Result struct {
	Stdout, Stderr string
	Code           int // exit status; 128 + signal when a signal killed it
	Took           time.Duration
}

// A Running is an invocation that has been started.
type Running struct {
	Cache string
	Mark  string // unique text in the environment of every process it starts itself
	PID   int

	cmd            *exec.Cmd
	group          *cgroup
	started        time.Time
	stdout, stderr bytes.Buffer
	ended          bool
	used           Usage // what it had used when it ended
}

// Start starts an invocation. The caller waits for it.
func (l *Lab) Start(ctx context.Context, i Invocation) (*Running, error) {
	if i.Program == "" {
		bob, err := l.Bob()
		if err != nil {
			return nil, err
		}
		i.Program = bob
	}
	if i.Home == "" {
		i.Home = filepath.Join(i.Dir, "home")
	}
	if i.Cache == "" {
		i.Cache = filepath.Join(i.Dir, "cache")
	}
	if err := l.User.Mkdir(i.Home); err != nil {
		return nil, err
	}
	r := &Running{Cache: i.Cache, Mark: fmt.Sprintf("run-%d-%d", os.Getpid(), l.dirs.Add(1))}
	env := append([]string{"HOME=" + i.Home, "BOB_CACHE_DIR=" + i.Cache, "TEST_MARK=" + r.Mark, "BOB_CACHE_SYNC=false", "BOB_RETRY_FOR=3s"}, i.Env...)
	r.cmd = l.User.Command(ctx, i.Dir, env, i.Program, i.Args...)
	if i.Trace != nil {
		i.Trace.wrap(r.cmd)
	}
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = i.Stdin, &r.stdout, &r.stderr
	if i.Stderr != nil {
		r.cmd.Stderr = io.MultiWriter(&r.stderr, i.Stderr)
	}
	r.cmd.WaitDelay = 20 * time.Second // what an orphan may hold our pipes open before it counts as an error
	var err error
	if r.group, err = newCgroup(r.Mark); err != nil {
		return nil, err
	}
	r.group.apply(r.cmd.SysProcAttr)
	r.started = time.Now()
	if err := r.cmd.Start(); err != nil {
		r.group.remove()
		return nil, fmt.Errorf("start %s: %w", i.Program, err)
	}
	r.PID = r.cmd.Process.Pid
	return r, nil
}

// Signal sends sig to the first process alone, as kill(1) would.
func (r *Running) Signal(sig syscall.Signal) error { return r.cmd.Process.Signal(sig) }

// Kill sends SIGKILL to the run's processes whose command line is command, as
// the kernel does when memory runs out, and says whether there were any.
func (r *Running) Kill(command string) bool {
	found := false
	for _, dir := range r.dirs() {
		line, err := os.ReadFile(dir + "/cmdline")
		if err != nil || strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " ")) != command {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		found = err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil || found
	}
	return found
}

// Wait waits for the end. The error tells of a harness gone wrong, never of
// an exit status.
func (r *Running) Wait() (Result, error) {
	for errors.Is(unix.Waitid(unix.P_PID, r.PID, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	r.used = usageOf(r.PID, r.group) // the kernel forgets it with the process
	r.ended = true
	err := r.cmd.Wait()
	result := Result{Stdout: r.stdout.String(), Stderr: r.stderr.String(), Took: time.Since(r.started)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		status, ok := exit.Sys().(syscall.WaitStatus)
		if ok && status.Signaled() {
			result.Code = 128 + int(status.Signal())
		} else {
			result.Code = exit.ExitCode()
		}
	case err != nil:
		return result, fmt.Errorf("wait for %s: %w", r.cmd.Path, err)
	}
	return result, nil
}

// Usage returns what the run has used. A run that has ended keeps its last usage, to
// which Leftovers adds the processor time of what went on in the background.
func (r *Running) Usage() Usage {
	if r.ended {
		return r.used
	}
	return usageOf(r.PID, r.group)
}

// Resident returns the memory that is resident now, in bytes: of all processes of the
// run, and of its program alone, which may execute itself. Pages that processes share
// count once.
func (r *Running) Resident() (tree, self int64) {
	return resident(r.dirs(), filepath.Base(r.cmd.Path))
}

// Run starts an invocation and waits for it, and for everything that it may
// have left: the returned problems name processes, mounts and files that
// outlived it. Nothing of them survives the call.
func (l *Lab) Run(ctx context.Context, i Invocation) (Result, []string, error) {
	r, err := l.Start(ctx, i)
	if err != nil {
		return Result{}, nil, err
	}
	result, err := r.Wait()
	return result, r.Leftovers(), err
}

// Leftovers returns what outlived a run that has ended: processes, mounts in
// this mount namespace, cgroups, and entries in the active and temporary
// directories of the cache. Then it kills the processes. A process that waits for a
// moment to sync the cache is killed too, but not returned.
func (r *Running) Leftovers() []string {
	var found []string
	for range 20 { // the kernel may still be tearing a pid namespace down
		if found = slices.DeleteFunc(r.processes(), isSyncing); len(found) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if r.group != nil {
		r.used.CPU = r.group.used()
	}
	r.group.remove()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		found = append(found, err.Error())
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, r.Cache+"/") {
			found = append(found, "mount: "+strings.TrimSpace(line))
		}
	}
	for _, pattern := range []string{"ids/*/active/*", "tmp/*"} {
		entries, _ := filepath.Glob(filepath.Join(r.Cache, pattern))
		for _, e := range entries {
			if !strings.HasPrefix(filepath.Base(e), ".") { // a lock file may stay
				found = append(found, "file: "+e)
			}
		}
	}
	return found
}

// isSyncing reports whether a process is one that builds leave behind them.
func isSyncing(process string) bool {
	return strings.Contains(process, " cache sync --idle --cache-dir ")
}

// processes lists the living processes of a run.
func (r *Running) processes() []string {
	if r.group != nil {
		return r.group.processes()
	}
	var found []string
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if dir == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		environ, _ := os.ReadFile(dir + "/environ")
		mounts, _ := os.ReadFile(dir + "/mountinfo")
		if bytes.Contains(environ, []byte("TEST_MARK="+r.Mark)) || bytes.Contains(mounts, []byte(r.Cache+"/")) {
			found = append(found, describe(dir))
		}
	}
	return found
}

// dirs lists the directories in /proc of a run's processes.
func (r *Running) dirs() []string {
	var dirs []string
	if r.group != nil {
		pids, _ := os.ReadFile(filepath.Join(r.group.path, "cgroup.procs"))
		for pid := range strings.FieldsSeq(string(pids)) {
			dirs = append(dirs, "/proc/"+pid)
		}
		return dirs
	}
	for _, line := range r.processes() {
		pid, _, _ := strings.Cut(strings.TrimPrefix(line, "process "), ":")
		dirs = append(dirs, "/proc/"+pid)
	}
	return dirs
}
