package executor_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/bobbuild/bob/executor"
)

// The memory that a build takes, from the plan to the image, grows with the number of
// its instructions and not with the square of it.
func TestManyInstructions(t *testing.T) { //nolint:paralleltest // counts the memory of the process
	k := newKit(t, nil)
	allocated := func(n int) uint64 {
		var text strings.Builder
		text.WriteString("FROM scratch\nCOPY <<f /f\nf\n")
		for i := range n {
			fmt.Fprintf(&text, "ENV E%[1]d=value\nLABEL l%[1]d=value\nEXPOSE %[1]d\nONBUILD ENV e%[1]d=1\nUSER u%[1]d\n", i+1)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := k.mustBuild(text.String(), executor.Options{ExplainCache: true})
		runtime.ReadMemStats(&after)
		if len(r.Layers) != 1 {
			t.Fatalf("%d layers", len(r.Layers))
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	allocated(1) // what is made once
	if few, many := allocated(500), allocated(2000); many > 8*few {
		t.Errorf("500 instructions of each kind take %d kB, 2000 take %d kB", few>>10, many>>10)
	}
}
