package sandbox

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/cgroup"
)

// processLimits are the limits of processes that bob itself has: what a command starts
// counts against them, too.
type processLimits struct {
	dirs    []string // of bob's cgroups
	reached int      // how often the kernel had refused a process for the limit of one
	user    uint64   // how many processes the user may have, RLIMIT_NPROC
}

// manyProcesses is a limit of a user that no command is expected to reach.
const manyProcesses = 1024

// currentLimits returns the limits for p before it is started.
func currentLimits(p *Process) *processLimits {
	l := &processLimits{dirs: cgroup.Dirs("pids"), user: math.MaxUint64}
	l.reached = l.count()
	var limit unix.Rlimit
	// Root of the machine is not held to it.
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err == nil && userns.RunningInUserNS() {
		l.user = limit.Cur
	}
	for _, u := range p.Ulimits {
		if u.Name == "nproc" {
			l.user = u.Soft
		}
	}
	return l
}

// count returns how often the kernel has refused a process.
func (l *processLimits) count() (n int) {
	for _, dir := range l.dirs {
		n += cgroup.Count(dir, "pids.events", "max")
	}
	return n
}

// explain adds to the error of a command, or of one that could not be started, the limit
// that it has reached. Whether it has reached the limit of a user isn't known: the kernel
// keeps no count of that.
func (l *processLimits) explain(err error) error {
	exit, ended := errors.AsType[*ExitError](err)
	switch {
	case err == nil, ended && (exit.Limit != "" || exit.Reason != ""):
		return err
	case !ended && !strings.Contains(strings.ToLower(err.Error()), unix.EAGAIN.Error()):
		return err // nothing was lacking
	}
	limit := l.lacking()
	switch {
	case limit == "":
		return err
	case ended:
		exit.Limit = limit
		return err
	}
	return fmt.Errorf("%w: %s", err, limit)
}

// lacking says which limit a command has reached, or may have reached, and what to do; ""
// if there is no such limit.
func (l *processLimits) lacking() string {
	if l.count() > l.reached {
		limit, where := int64(math.MaxInt64), ""
		for _, dir := range l.dirs {
			if n := cgroup.Number(dir, "pids.max"); n < limit {
				limit, where = n, dir
			}
		}
		if where != "" {
			return fmt.Sprintf("no more processes can be started in the container or service that bob runs in, whose limit is %d (pids.max in %s): raise it", limit, where)
		}
	}
	if l.user < manyProcesses {
		return fmt.Sprintf("bob's user may have %d processes (ulimit -u): if no more could be started, raise that limit", l.user)
	}
	return ""
}
