package integration_test

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"
)

// TestRawJSON: every line of --progress rawjson is an object that BuildKit's
// tools can read.
func TestRawJSON(t *testing.T) {
	t.Parallel()
	b := newWorkbench(t)
	b.write(map[string]string{"context/Dockerfile": "FROM $REGISTRY/busybox\nRUN echo out; echo err >&2\n"})
	result := b.bob("build", "--progress=rawjson", "context")
	if result.Code != 0 {
		t.Fatalf("exit code %d\n%s", result.Code, result.Stderr)
	}
	found := map[string]bool{}
	for lines := bufio.NewScanner(strings.NewReader(result.Stderr)); lines.Scan(); {
		var status struct {
			Vertexes []struct{ Digest, Name string }
			Statuses []struct{ ID string }
			Logs     []struct {
				Vertex string
				Data   []byte
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &status); err != nil {
			t.Fatalf("%v: %q", err, lines.Text())
		}
		for _, v := range status.Vertexes {
			found[v.Name] = true
		}
		for _, l := range status.Logs {
			found[strings.TrimSpace(string(l.Data))] = true
		}
	}
	for _, want := range []string{"[2/2] RUN echo out; echo err >&2", "out", "err"} {
		if !found[want] {
			t.Errorf("no %q in %v", want, found)
		}
	}
}
