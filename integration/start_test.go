package integration_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// What bob may allocate before main begins, in bytes: each of its own packages, and all
// packages together. Every build starts bob several times, and every RUN once.
const (
	startOfPackage = 4 << 10
	startOfAll     = 1 << 20
)

// TestStart has the runtime tell what packages do before main begins.
func TestStart(t *testing.T) {
	t.Parallel()
	bob, err := lab.Bob()
	check(t, err)
	cmd := exec.CommandContext(t.Context(), bob, "version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	check(t, cmd.Run())
	packages, total := 0, 0
	for lines := bufio.NewScanner(&said); lines.Scan(); {
		// init internal/bytealg @0.008 ms, 0 ms clock, 0 bytes, 0 allocs
		var name string
		var at, took float64
		var size, allocs int
		if n, _ := fmt.Sscanf(lines.Text(), "init %s @%f ms, %f ms clock, %d bytes, %d allocs", &name, &at, &took, &size, &allocs); n != 5 {
			continue
		}
		packages++
		total += size
		if strings.HasPrefix(name, "github.com/bobbuild/bob/") && size > startOfPackage {
			t.Errorf("package %s allocates %d bytes before main begins, may allocate %d: make what it keeps when it is first used, as by regexp.Delayed or sync.OnceValue",
				name, size, startOfPackage)
		}
	}
	if packages == 0 {
		t.Fatalf("the runtime told nothing: %s", said.String())
	}
	if total > startOfAll {
		t.Errorf("%d packages allocate %d bytes before main begins, may allocate %d: GODEBUG=inittrace=1 bob version shows which", packages, total, startOfAll)
	}
}

// BenchmarkStart starts bob and ends it.
func BenchmarkStart(b *testing.B) {
	bob, err := lab.Bob()
	check(b, err)
	for b.Loop() {
		check(b, exec.CommandContext(b.Context(), bob, "version").Run())
	}
}
