package integration_test

import (
	"strings"
	"testing"
	"unicode"
)

// TestTerminalIsLeftAlone builds what would command a terminal by every text that a
// Dockerfile, a context and a RUN put before it.
func TestTerminalIsLeftAlone(t *testing.T) {
	t.Parallel()
	const evil = "\x1b]52;c;ZXZpbA==\a\x1b[2J\u009b31m\u202e\u2066\x7f\b"
	for _, progress := range []string{"plain", "quiet", "rawjson"} {
		t.Run(progress, func(t *testing.T) {
			t.Parallel()
			b := newWorkbench(t)
			b.write(map[string]string{
				"context/a" + evil: "",
				"context/Dockerfile": "FROM $REGISTRY/busybox AS base\nLABEL x=\"" + evil + "\"\n" +
					"COPY --chown=no" + evil + " a* /" + evil + "\n" +
					"RUN --mount=type=cache,id=" + evil + ",target=/c cat /proc/self/cmdline; exit 3 # " + evil + "\n",
			})
			result := b.bob("build", "--progress="+progress, "context")
			if result.Code != 1 || !strings.Contains(result.Stderr, "exit code: 3") {
				t.Errorf("exit code %d, %q", result.Code, result.Stderr)
			}
			for _, r := range result.Stdout + result.Stderr + b.bob("cache", "ls").Stdout {
				if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
					t.Fatalf("%q is in %q", r, result.Stderr)
				}
			}
		})
	}
}
