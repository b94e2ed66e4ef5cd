// Command bench builds the same Dockerfiles with bob and with other builders, side by
// side: as the same unprivileged user, against the same registry, in alternating order,
// each on a fresh file system. Debian's rootless buildah always takes part; others do if
// they are in the directory that $BOB_BENCH_PEERS names: buildkitd and buildctl, buildah,
// executor (kaniko), and bob-old, another bob. So does a program that does only what no
// builder gets around, the floor.
//
// It prints medians of time, with the range, of processor time and of the highest memory,
// and of what was written and moved, and can write each single run to files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bobbuild/bob/integration/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	separated, err := separate(ctx)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode()) // it has said why
	}
	if !separated && err == nil {
		err = run(ctx, os.Args[1:], os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	runs                     int
	only, variant, builders  string
	jsonFile, benchmarksFile string
}

// run does what the arguments ask for, and prints tables to w.
func run(ctx context.Context, args []string, w io.Writer) (err error) {
	var s settings
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&s.runs, "runs", 3, "runs of each `count`")
	flags.StringVar(&s.only, "only", "", "run only the workloads `names`, between commas; W7 is W7-link, too")
	flags.StringVar(&s.variant, "variant", "", "run only the `variant`: cold, unchanged, changed or import")
	flags.StringVar(&s.builders, "builders", "", "have only these builders take part, `names` between commas")
	flags.StringVar(&s.jsonFile, "json", "", "write each run to `file`")
	flags.StringVar(&s.benchmarksFile, "bench", "", "write each run to `file` as benchstat reads it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := harness.Need("buildah", "newuidmap"); err != nil {
		return err
	}
	lasting := context.WithoutCancel(ctx) // the registry lives until the laboratory is closed
	lab, err := harness.Open(lasting, "bobtest")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.Close(lasting)) }()
	if !canMount() {
		fmt.Fprintln(w, "not root: builders begin in fresh directories of one file system, not on fresh file systems")
	} else if err := giveHome(lab); err != nil {
		return fmt.Errorf("give %s a home: %w", lab.User.Name, err)
	}
	registry, err := lab.Registry()
	if err != nil {
		return err
	}
	traffic := harness.NewTraffic(registry)
	defer traffic.Close()
	peers, err := s.peers(ctx, lab)
	if err != nil {
		return err
	}
	var records []record
	for i := range workloads {
		found, err := s.compete(ctx, &contest{lab: lab, traffic: traffic, workload: &workloads[i]}, peers)
		records = append(records, found...)
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", workloads[i].name, err), s.write(w, records))
		}
	}
	return s.write(w, records)
}

// peers returns the builders that take part.
func (s *settings) peers(ctx context.Context, lab *harness.Lab) ([]peer, error) {
	policy := []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`)
	if err := os.WriteFile(filepath.Join(lab.Dir, "policy.json"), policy, 0o644); err != nil {
		return nil, err
	}
	root, err := harness.Module(ctx)
	if err != nil {
		return nil, err
	}
	floor := filepath.Join(lab.Dir, "floor")
	if err := sh(ctx, "go", "-C", root, "build", "-o", floor, "./integration/bench/floor"); err != nil {
		return nil, err
	}
	if _, err := lab.Bob(); err != nil { // lest it be built between a calibration and a run
		return nil, err
	}
	dir := os.Getenv("BOB_BENCH_PEERS")
	if dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
	}
	peers := findPeers(lab, dir, floor)
	if s.builders != "" {
		wanted := strings.Split(s.builders, ",")
		peers = slices.DeleteFunc(peers, func(p peer) bool { return !slices.Contains(wanted, p.name) })
	}
	return peers, nil
}

// compete runs a workload if it is wanted. Every other run goes through the builders in
// reverse.
func (s *settings) compete(ctx context.Context, c *contest, peers []peer) ([]record, error) {
	name, _, _ := strings.Cut(c.workload.name, "-")
	if s.only != "" && !slices.Contains(strings.Split(s.only, ","), name) {
		return nil, nil
	}
	c.variants = slices.DeleteFunc(slices.Clone(c.workload.variants), func(v variant) bool { return s.variant != "" && s.variant != string(v) })
	if len(c.variants) == 0 {
		return nil, nil
	}
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	for n := range s.runs {
		peers := slices.Clone(peers)
		if n%2 == 1 {
			slices.Reverse(peers)
		}
		for _, p := range peers {
			if err := c.visit(ctx, p, n); err != nil {
				return c.records, fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	return c.records, nil
}

// write prints the tables, and writes the files that are wanted.
func (s *settings) write(w io.Writer, records []record) error {
	err := printTables(w, records)
	if s.jsonFile != "" {
		err = errors.Join(err, writeJSON(s.jsonFile, records))
	}
	if s.benchmarksFile != "" {
		err = errors.Join(err, writeBenchmarks(s.benchmarksFile, records))
	}
	return err
}
