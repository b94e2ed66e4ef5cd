package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
)

// probeVariable is the environment variable that makes a process a probe's: a
// probeOrder in JSON.
const probeVariable = "_BOB_PROBE"

// A probe tries one thing.
type probe struct {
	name, what string
	need       Need    // where it is tried
	entered    bool    // whether it does so after entering, as a build would
	anywhere   bool    // whether, after entering, in a chroot or without isolation too
	namespaces uintptr // further namespaces to be in
	try        func(o *probeOrder) outcome
}

// unmet says what trying takes that the mode hasn't, "" for nothing.
func (p *probe) unmet(m *isolation.Mode) string {
	switch {
	case !p.entered, p.name == entering:
	case m == nil:
		return "entering bob's namespaces"
	case (p.name == running || p.name == emulating) && !m.CanRun(), !p.anywhere && !m.CanMount():
		return "a sandbox"
	}
	return ""
}

// needIn returns what it is needed for in the mode of builds.
func (p *probe) needIn(m *isolation.Mode) Need {
	switch {
	case p.name == entering && m == nil:
		return ForAll
	case p.name == entering && !m.CanRun():
		return ForRUN
	case p.name == notifying && m != nil && m.OneID:
		return ForRUN // owners are emulated by it
	case m != nil && p.unmet(m) != "":
		return Optional
	}
	return p.need
}

// outcome is what a probe found.
type outcome struct {
	Answer   Answer
	Detail   string
	Obstacle *obstacle.Obstacle
	Mode     *isolation.Mode // of the first probe alone
}

// yes is the outcome of what works.
func yes(detail string) outcome { return outcome{Answer: Yes, Detail: detail} }

// no is the outcome of what doesn't.
func no(why, fix string) outcome { return refusal(obstacle.New(why, fix)) }

// refusal is no with an obstacle.
func refusal(o *obstacle.Obstacle) outcome { return outcome{Answer: No, Obstacle: o} }

// probeOrder is what the process of a probe is told.
type probeOrder struct {
	Name      string // of the probe
	Dir       string // the cache directory
	Scratch   string // an existing directory for the probes' files, removed afterwards
	Rootless  bool
	Isolation isolation.Kind
	Inside    bool // whether the process has all namespaces that it needs

	mode *isolation.Mode // that was entered
	ctx  context.Context //nolint:containedctx // of the process of a probe, as long as that
}

// dir makes a directory for this probe alone.
func (o *probeOrder) dir(name string) (string, error) {
	path := filepath.Join(o.Scratch, o.Name, name)
	return path, os.MkdirAll(path, 0o700)
}

// start runs the probe of that name in a process group of its own, and bounds it.
func (o *probeOrder) start(caller context.Context, name string, limit time.Duration) outcome {
	// The parent death signal is about the thread that forks.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeout(caller, limit)
	defer cancel()
	order := *o
	order.Name = name
	cmd, err := order.command(ctx)
	if err != nil {
		return no(err.Error(), "")
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var out outcome
	switch {
	case caller.Err() != nil:
		return outcome{Answer: Unknown, Obstacle: &obstacle.Obstacle{Why: "interrupted"}}
	case ctx.Err() != nil:
		return outcome{Answer: Unknown, Obstacle: &obstacle.Obstacle{Why: fmt.Sprintf("it took longer than %s and was ended", limit)}}
	case json.Unmarshal(stdout.Bytes(), &out) == nil && out.Answer != "":
		return out
	case err != nil:
		first, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return outcome{Answer: Unknown, Obstacle: &obstacle.Obstacle{Why: strings.TrimSuffix(fmt.Sprintf("the probe broke: %v: %s", err, first), ": ")}}
	}
	return outcome{Answer: Unknown, Obstacle: &obstacle.Obstacle{Why: "the probe said nothing"}}
}

// command returns the command that runs the probe of the order.
func (o *probeOrder) command(ctx context.Context) (*exec.Cmd, error) {
	encoded, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), probeVariable+"="+string(encoded))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.WaitDelay = time.Second // for what holds the pipes and can't be killed
	return cmd, nil
}

// deeper runs the probe in a process with further namespaces.
func (o *probeOrder) deeper(namespaces uintptr) outcome {
	inside := *o
	inside.Inside = true
	cmd, err := inside.command(o.ctx)
	if err != nil {
		return no(err.Error(), "")
	}
	cmd.SysProcAttr.Cloneflags = namespaces
	cmd.Stderr = os.Stderr
	encoded, err := cmd.Output()
	var out outcome
	switch {
	case json.Unmarshal(encoded, &out) == nil && out.Answer != "":
		return out
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return no("the machine refuses namespaces inside of bob's: "+err.Error(), obstacle.WithoutFilters)
	case errors.Is(err, unix.ENOSPC):
		return no("the limit of such namespaces is reached", "as root, raise the limits that `sysctl user` shows, as\n  sysctl -w user.max_pid_namespaces=15000 user.max_net_namespaces=15000 user.max_mnt_namespaces=15000")
	}
	return outcome{Answer: Unknown, Obstacle: &obstacle.Obstacle{Why: fmt.Sprintf("the probe broke: %v", err)}}
}

// The names of the probes that others depend on, or that depend on the mode.
const (
	entering  = "entering"
	running   = "run"
	notifying = "seccomp-notify"
	emulating = "binfmt"
)
