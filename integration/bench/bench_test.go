package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bobbuild/bob/integration/harness"
)

// TestVisit has bob and the floor build the same, and looks at what they made and at what
// was measured.
func TestVisit(t *testing.T) {
	lab, err := harness.Open(t.Context(), "bobtest")
	check(t, err)
	t.Cleanup(func() { check(t, lab.Close(context.Background())) })
	registry, err := lab.Registry()
	check(t, err)
	traffic := harness.NewTraffic(registry)
	t.Cleanup(traffic.Close)
	s := settings{builders: "bob,floor"}
	peers, err := s.peers(t.Context(), lab)
	check(t, err)
	load := &workload{
		name: "W1", bases: []string{"busybox"}, dockerfile: "FROM $REGISTRY/busybox\nCOPY . /\nRUN echo a > /a\n",
		fill: helloFile, change: "hello.c", variants: []variant{cold}, floor: []string{"echo a > /a"},
	}
	c := &contest{lab: lab, traffic: traffic, workload: load, variants: load.variants}
	check(t, c.prepare(t.Context()))
	for _, p := range peers {
		check(t, c.visit(t.Context(), p, 0))
		image, err := lab.Pull(t.Context(), c.jobs(p, 0)[0].ref)
		check(t, err)
		var names []string
		for _, layer := range image.Layers[1:] {
			for _, entry := range layer.Entries {
				names = append(names, strings.TrimPrefix(entry.Name, "./"))
			}
		}
		if want := []string{"hello.c", "a"}; !slices.Equal(names, want) {
			t.Errorf("%s made layers of %q, want %q", p.name, names, want)
		}
	}
	if len(c.records) != 2 {
		t.Fatalf("%d records, want 2", len(c.records))
	}
	for _, r := range c.records {
		if r.Cost == nil {
			t.Errorf("%s failed: %s", r.Builder, r.Failed)
		} else if r.Cost.Wall <= 0 || r.Cost.CPU <= 0 || r.Cost.Peak <= 0 || r.Cost.Requests < 5 || r.Cost.Sent == 0 || r.Cost.Received < 1e6 {
			t.Errorf("%s took %+v", r.Builder, *r.Cost)
		}
	}
}

// TestTables prints records of which some failed.
func TestTables(t *testing.T) {
	records := []record{
		{Workload: "W2", Variant: changed, Builder: "bob", Calibration: calibration{Fork: 1e8, Hash: 1e7}, Cost: &cost{Wall: 2e9, CPU: 3e9, Peak: 5 << 20}},
		{Workload: "W1", Variant: cold, Builder: floorName, Calibration: calibration{Fork: 1e8, Hash: 1e7}, Cost: &cost{Wall: 1e8}},
		{Workload: "W1", Variant: cold, Builder: "kaniko", Failed: "no"},
		{Workload: "W1", Variant: cold, Builder: "buildkit", Calibration: calibration{Fork: 2e8, Hash: 1e7}, Cost: &cost{Wall: 1e9}},
		{Workload: "W1", Variant: cold, Builder: "bob", Calibration: calibration{Fork: 1e8, Hash: 1e7}, Cost: &cost{Wall: 4e8}},
		{Workload: "W1", Variant: cold, Builder: "bob", Run: 1, Calibration: calibration{Fork: 1e8, Hash: 1e7}, Cost: &cost{Wall: 6e8}},
	}
	var text bytes.Buffer
	check(t, printTables(&text, records))
	lines := strings.Split(text.String(), "\n")
	for i, want := range []string{
		"wall s", "workload variant bob buildkit kaniko floor bob/best peer bob/floor",
		"W1 busybox, five trivial RUN cold 0.40 (0.40–0.60) / 0.00 / 0 1.00 / 0.00 / 0 ~ failed 0.10 / 0.00 / 0 0.40 4.00",
		"W2 COPY of 20,000 files (212 MB), RUN changed 2.00 / 3.00 / 5 – – – – –",
	} {
		if got := strings.Join(strings.Fields(lines[i]), " "); !strings.HasPrefix(got, want) {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
	}
	dir := t.TempDir()
	check(t, writeBenchmarks(filepath.Join(dir, "bench"), records))
	body, err := os.ReadFile(filepath.Join(dir, "bench"))
	check(t, err)
	if want := "BenchmarkBuild/W2/changed/bob 1 2000000000 ns/op 3000000000 cpu-ns/op 5242880 peak-B "; !strings.Contains(string(body), want) {
		t.Errorf("%q isn't in\n%s", want, body)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if missing, ok := errors.AsType[*harness.MissingError](err); ok {
		t.Skip(missing)
	}
	if err != nil {
		t.Fatal(err)
	}
}
