package integration_test

import (
	"strings"
	"testing"
)

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
