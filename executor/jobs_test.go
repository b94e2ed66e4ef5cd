package executor_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/sandbox"
)

// TestWaitingCommands: more commands than there are CPUs run at once, since they may wait
// for each other. Here each waits until all have begun.
func TestWaitingCommands(t *testing.T) {
	t.Parallel()
	stages := runtime.NumCPU() + 1
	if jobs := executor.DefaultJobs(); jobs < stages {
		if debug.SetMemoryLimit(-1) < math.MaxInt64 {
			t.Skip("there isn't memory for more commands than CPUs")
		}
		t.Fatalf("%d jobs on %d CPUs", jobs, runtime.NumCPU())
	}
	var begun sync.WaitGroup
	begun.Add(stages)
	all := make(chan struct{})
	go func() {
		begun.Wait()
		close(all)
	}()
	k := newKit(t, func(ctx context.Context, _ *sandbox.Process) error {
		begun.Done()
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	base := k.base("base", map[string]string{"file": "content"})
	var text strings.Builder
	for n := range stages {
		fmt.Fprintf(&text, "FROM %s AS s%d\nRUN wait %d\n", base, n, n)
	}
	fmt.Fprintf(&text, "FROM %s\n", base)
	for n := range stages {
		fmt.Fprintf(&text, "COPY --from=s%d /file /%d\n", n, n)
	}
	k.mustBuild(text.String(), executor.Options{})
	if ran := k.taken(); len(ran) != stages {
		t.Errorf("ran %q", ran)
	}
}
