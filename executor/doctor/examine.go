package doctor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
)

// Options say what Examine examines the machine for.
type Options struct {
	// Dir is the cache directory of builds. It need not exist, and is not made.
	Dir string
	// Rootless and Isolation are those of isolation.Options.
	Rootless  bool
	Isolation isolation.Kind
	// Limit bounds the time of each probe; 0 is twenty seconds.
	Limit time.Duration
}

// Finding is what one probe found out.
type Finding struct {
	// Name is the same on every machine and in every version, as "overlay".
	Name string `json:"name"`
	// What is Name for people.
	What string `json:"what"`
	// Answer is whether the machine allows it.
	Answer Answer `json:"answer"`
	// Need is what doesn't work without it.
	Need Need `json:"need"`
	// Detail is what there is to say about a Yes, as the amount of free space.
	Detail string `json:"detail,omitempty"`
	// Why and Fix are those of an Obstacle.
	Why string `json:"why,omitempty"`
	Fix string `json:"fix,omitempty"`
}

// Answer is what a probe found.
type Answer string

// The answers.
const (
	Yes Answer = "yes"
	No  Answer = "no"
	// Unknown is that the probe was ended for taking too long, broke, or had
	// no sense after what another found. Why tells.
	Unknown Answer = "unknown"
)

// Need is what something is needed for.
type Need string

// The needs, each of which includes those before it.
const (
	Optional Need = "optional" // builds work without it; Why says what is different
	ForRUN   Need = "run"      // builds with RUN
	ForAll   Need = "all"      // every build
)

const defaultLimit = 20 * time.Second

// Examine finds out what of that which builds need, or can use, the machine
// allows. It does each thing in a process of its own that is killed, with all that
// it started, when it takes longer than the limit or ctx ends: no probe's fate
// touches another's. Processes, mounts and files that probes make are gone when it
// returns. The process must not have entered. The findings have a fixed order. The
// mode is that of builds, nil if Enter fails.
//
// A build works if no finding that is ForAll is other than Yes; one with RUN if,
// besides, none is that is ForRUN.
func Examine(ctx context.Context, o Options) (*isolation.Mode, []Finding) {
	if o.Limit == 0 {
		o.Limit = defaultLimit
	}
	all := probes()
	findings := make([]Finding, len(all))
	var scratch string
	s, errScratch := makeScratch(o.Dir)
	if errScratch == nil {
		scratch = s.path
		defer s.remove()
	}
	order := probeOrder{Dir: o.Dir, Scratch: scratch, Rootless: o.Rootless, Isolation: o.Isolation}
	var mode *isolation.Mode
	examine := func(i int) {
		p := &all[i]
		out := outcome{Answer: Unknown}
		switch unmet := p.unmet(mode); {
		case p.entered && scratch == "":
			out.Obstacle = &obstacle.Obstacle{Why: "not tried: there is no directory to try it in: " + errScratch.Error()}
		case unmet != "":
			out.Obstacle = &obstacle.Obstacle{Why: "not tried: it takes " + unmet}
		default:
			out = order.start(ctx, p.name, o.Limit)
		}
		if p.name == entering {
			mode = out.Mode
		}
		findings[i] = Finding{Name: p.name, What: p.what, Answer: out.Answer, Need: p.needIn(mode), Detail: out.Detail}
		if out.Obstacle != nil {
			findings[i].Why, findings[i].Fix = out.Obstacle.Why, out.Obstacle.Fix
		}
	}
	// The others depend on what the first finds.
	at := slices.IndexFunc(all, func(p probe) bool { return p.name == entering })
	examine(at)
	var group sync.WaitGroup
	slots := make(chan struct{}, probesAtOnce)
	for i := range all {
		if i == at {
			continue
		}
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			examine(i)
		})
	}
	group.Wait()
	return mode, findings
}

// probesAtOnce bounds how many probes run beside each other.
const probesAtOnce = 4

// makeScratch makes a directory for probes on the file system of the cache
// directory; in the system's directory for temporary files if that can't be
// written, which is a finding of its own.
func makeScratch(dir string) (*scratch, error) {
	s, err := newScratch(existing(dir), ".bob-doctor-")
	if err != nil {
		var errTemp error
		if s, errTemp = newScratch("", "bob-doctor-"); errTemp != nil {
			return nil, errors.Join(err, errTemp)
		}
	}
	return s, nil
}

// existing returns dir, or the closest directory above it that exists.
func existing(dir string) string {
	for {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// A scratch is a directory to try things in. It is locked (flock) as long as it is
// there: in a cache directory the next build removes what a killed process left.
type scratch struct {
	path string
	lock *os.File
}

// newScratch makes a directory in dir, of a name with that prefix and digits. The caller
// removes it.
func newScratch(dir, prefix string) (*scratch, error) {
	path, err := os.MkdirTemp(dir, prefix)
	if err != nil {
		return nil, err
	}
	lock, err := os.Open(path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	// Nobody else knows of it, and file systems that lock nothing keep no cache.
	_ = unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	return &scratch{path, lock}, nil
}

// remove removes the directory. The kernel makes directories in overlays that nobody may
// list.
func (s *scratch) remove() {
	_ = filepath.WalkDir(s.path, func(path string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a directory
		}
		return nil
	})
	_ = os.RemoveAll(s.path)
	_ = s.lock.Close()
}
