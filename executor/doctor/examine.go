package doctor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/executor/obstacle"
)

// Options say what Examine examines the machine for.
type Options struct {
	// Dir is the cache directory of builds. It need not exist, and is not made.
	Dir string
	// Rootless and Isolation are as in isolation.Options.
	Rootless  bool
	Isolation isolation.Kind
	// Limit bounds the time of each probe; 0 is twenty seconds.
	Limit time.Duration
}

const defaultLimit = 20 * time.Second

// Examine finds out what of that which builds need, or can use, the machine
// allows. It does each thing in a process of its own that is killed, with all that
// it started, when it takes longer than the limit or ctx ends: no probe's fate
// touches another's. Processes, mounts and files that probes make are gone when it
// returns. The process must not have entered. The findings have a fixed order. The
// mode is what builds would have, nil if isolation.Enter fails.
//
// A build without RUN works if every finding that is ForAll is Yes. A build with RUN works
// if every finding that is ForRUN is Yes, too.
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
