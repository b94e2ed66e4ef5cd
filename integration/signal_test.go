package integration_test

import (
	"bytes"
	"os"
	"path/filepath"
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
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN true\nRUN " + test.run + "\n"})
			seen := watchFor(" started\n")
			r, err := lab.Start(t.Context(), harness.Invocation{
				Dir: b.dir, Args: []string{"build", "--progress=plain", "-t", b.ref, "context"}, Stderr: seen,
			})
			check(t, err)
			ended := make(chan struct{})
			var result harness.Result
			go func() {
				defer close(ended)
				result, err = r.Wait()
			}()
			select {
			case <-seen.done:
			case <-ended:
				t.Fatalf("bob ended by itself: exit code %d\n%s", result.Code, result.Stderr)
			case <-time.After(2 * time.Minute):
				t.Error("the RUN did not start")
			}
			check(t, r.Signal(test.signal))
			<-ended
			check(t, err)
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

// TestConcurrentBuilds runs builds of the same and of other things at once in
// one cache, as CI does.
func TestConcurrentBuilds(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{
		"context/Dockerfile": "FROM $REGISTRY/layers\nRUN echo same > /same\nCOPY f /f\nARG N\nRUN echo $N > /n\n", "context/f": "f\n",
	})
	_, err := lab.Image(t.Context(), "layers")
	check(t, err)
	var group sync.WaitGroup
	for _, n := range []string{"1", "2", "3", "1"} {
		group.Go(func() {
			ref := b.ref + "-" + n
			r, err := lab.Start(t.Context(), harness.Invocation{
				Dir: b.dir, Args: []string{"build", "--progress=plain", "-t", ref, "--build-arg=N=" + n, "context"},
			})
			if err != nil {
				t.Error(err)
				return
			}
			if result, err := r.Wait(); err != nil || result.Code != 0 {
				t.Errorf("build %s: %v, exit code %d\n%s", n, err, result.Code, result.Stderr)
			}
			for _, p := range r.Leftovers() {
				if !strings.HasPrefix(p, "file: ") && !strings.HasPrefix(p, "mount: ") { // those of the others
					t.Error("left", p)
				}
			}
		})
	}
	group.Wait()
	for _, n := range []string{"1", "2", "3"} {
		image, err := lab.Pull(t.Context(), b.ref+"-"+n)
		check(t, err)
		tree, err := harness.Flatten(image.Layers)
		check(t, err)
		if e := tree["n"]; e == nil || e.Size != 2 {
			t.Errorf("build %s: /n is %v", n, e)
		}
		if e := tree["data/old/new"]; e == nil {
			t.Errorf("build %s: the base lost a file", n)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(b.dir, "cache", "*", "active", "*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// TestDiskFull builds on a file system that is too small, at each place where
// it may fill up.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system takes root")
	}
	for name, test := range map[string]struct {
		size, dockerfile string
	}{
		"unpacking the base": {"1m", "FROM $REGISTRY/busybox\nRUN true\n"},
		"in a RUN":           {"24m", "FROM $REGISTRY/busybox\nRUN dd if=/dev/urandom of=/big bs=1M count=100\n"},
		"in a COPY":          {"24m", "FROM $REGISTRY/busybox\nCOPY big /big\nRUN true\n"},
		// The step itself fits, its compressed layer doesn't.
		"making the layer": {"24m", "FROM $REGISTRY/busybox\nRUN head -c 14000000 /dev/urandom > /big\nRUN true\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			small := filepath.Join(b.dir, "small")
			check(t, os.MkdirAll(small, 0o755))
			if err := mountExt4(t, small, test.size); err != nil {
				t.Skipf("this machine mounts no small file system: %v", err)
			}
			cache := filepath.Join(small, "cache")
			check(t, lab.User.Mkdir(cache))
			b.write(map[string]string{"context/Dockerfile": test.dockerfile, "context/big": strings.Repeat("0123456789abcdef", 3<<20)})
			result := b.run(harness.Invocation{Cache: cache, Args: []string{"build", "--progress=plain", "-t", b.ref, "context"}})
			if result.Code != 1 {
				t.Errorf("exit code %d\n%s", result.Code, result.Stderr)
			}
			if !matches("no space left", result.Stderr) {
				t.Errorf("it isn't said that the disk is full:\n%s", result.Stderr)
			}
			b.wantAbsent()
		})
	}
}

// TestLongLine: a RUN that prints 100 MB without a line feed, and one that
// prints what is no text, neither grow bob without bound nor stop it.
func TestLongLine(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]string{
		"one line":  "head -c 100000000 /dev/zero | tr '\\\\0' x",
		"no text":   "head -c 1000000 /dev/urandom",
		"many":      "yes | head -n 300000",
		"half line": "printf 'no line feed'",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN " + run + "\nRUN echo after-it\n"})
			result := b.bob("build", "--progress=plain", "-t", b.ref, "context")
			if result.Code != 0 || !strings.Contains(result.Stderr, " after-it\n") {
				t.Errorf("exit code %d, %d bytes of output", result.Code, len(result.Stderr))
			}
			if strings.ContainsAny(result.Stderr, "\x1b\x00") {
				t.Error("the plain view passed control characters on")
			}
			// And when it fails after that, the message is still one for people.
			b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN " + run + "; exit 9\n"})
			failed := b.bob("build", "--progress=quiet", "-t", b.ref+"-failed", "context")
			if failed.Code != 1 || !matches("exit code:? 9", failed.Stderr) || len(failed.Stderr) > 1<<20 {
				t.Errorf("exit code %d, %d bytes of output", failed.Code, len(failed.Stderr))
			}
		})
	}
}
