package integration_test

import (
	"bytes"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/integration/harness"
)

// A watcher is a writer that says when a text has gone by.
type watcher struct {
	mu   sync.Mutex
	seen bytes.Buffer
	want string
	done chan struct{}
	once sync.Once
}

func watchFor(text string) *watcher { return &watcher{want: text, done: make(chan struct{})} }

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen.Write(p)
	if bytes.Contains(w.seen.Bytes(), []byte(w.want)) {
		w.once.Do(func() { close(w.done) })
	}
	return len(p), nil
}

// TestSignals ends builds in the middle: the whole tree of the RUN dies, nothing
// is left, and the exit code says which signal it was.
func TestSignals(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		signal syscall.Signal
		run    string
		code   int
	}{
		"SIGINT":               {syscall.SIGINT, "echo started; sleep 3000", 130},
		"SIGTERM":              {syscall.SIGTERM, "echo started; sleep 3000", 143},
		"SIGTERM to a deaf":    {syscall.SIGTERM, `trap "" INT TERM HUP; echo started; while true; do sleep 1; done`, 143},
		"SIGINT with children": {syscall.SIGINT, "(setsid sleep 3000 &) ; sleep 3000 & echo started; wait", 130},
		"SIGINT while writing": {syscall.SIGINT, "echo started; yes | head -c 100000000000 > /dev/null", 130},
		"SIGKILL":              {syscall.SIGKILL, "echo started; sleep 3000", 137},
		"SIGINT to the group":  {syscall.SIGINT, "echo started; sleep 3000", 130},
		"SIGTERM with mounts": {syscall.SIGTERM, "--mount=target=/ctx,rw --mount=type=cache,target=/c --mount=type=cache,target=/p,sharing=private " +
			"--mount=type=tmpfs,target=/t --mount=type=secret,id=s (setsid sleep 3000 &); echo started; sleep 3000", 143},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN true\nRUN " + test.run + "\n", "tmp/": ""})
			seen := watchFor(" started\n")
			r := b.start(harness.Invocation{
				Args:   []string{"build", "--progress=plain", "-t", b.ref, "--secret=id=s,env=HOME", "context"},
				Stderr: seen, Env: []string{"TMPDIR=" + b.dir + "/tmp"},
			})
			r.until(t, seen.done)
			if name == "SIGINT to the group" { // as from a terminal
				check(t, syscall.Kill(-r.PID, test.signal))
			} else {
				check(t, r.Signal(test.signal))
			}
			<-r.ended
			result := r.result
			if result.Code != test.code {
				t.Errorf("exit code %d, want %d\n%s", result.Code, test.code, result.Stderr)
			}
			if result.Stdout != "" {
				t.Errorf("stdout has %q", result.Stdout)
			}
			b.wantAbsent()
			for _, left := range r.Leftovers() {
				// What SIGKILL leaves on disk is garbage for the next build to sweep.
				if test.signal != syscall.SIGKILL || !strings.HasPrefix(left, "file: ") {
					t.Error("left", left)
				}
			}
			b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN true\nRUN echo fine > /fine\n"})
			if again := b.build(); again == "" {
				t.Error("the next build in the same cache printed no digest")
			}
			b.wantSwept()
		})
	}
}

// TestRunKilled: the kernel kills the command of a RUN, as when memory runs out.
func TestRunKilled(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN [\"/bin/sh\", \"-c\", \"echo started; exec sleep 4321\"]\n"})
	seen := watchFor(" started\n")
	r, err := lab.Start(t.Context(), harness.Invocation{
		Dir: b.dir, Args: []string{"build", "--progress=plain", "-t", b.ref, "context"}, Stderr: seen,
	})
	check(t, err)
	<-seen.done
	for deadline := time.Now().Add(time.Minute); !r.Kill("sleep 4321"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("there is no such process")
			break
		}
	}
	result, err := r.Wait()
	check(t, err)
	if result.Code != 1 || !matches("137|killed|signal", result.Stderr) || !strings.Contains(result.Stderr, "Dockerfile:2") {
		t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
	}
	b.wantAbsent()
	for _, left := range r.Leftovers() {
		t.Error("left", left)
	}
}
