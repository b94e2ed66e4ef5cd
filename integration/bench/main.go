// Command bench builds the same Dockerfiles with bob and with Debian's rootless
// buildah, side by side: as the same unprivileged user, against the same
// registry, in alternating order, with a fresh state directory each time or, for
// rebuilds, with the directory of a build before. It prints the median time of each, their
// ratio, and bob's peak resident memory. At last it has bob alone import a cache of
// many steps, and counts what the registry is asked for it.
//
// Old state is kept until the end: ext4 does not reuse the inodes of a tree that
// was just removed and creates files several times slower for minutes.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"text/tabwriter"

	"github.com/bobbuild/bob/integration/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, w io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	runs := flags.Int("runs", 3, "runs of each `count`")
	only := flags.String("only", "", "run only workloads whose name starts with `prefix`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if err := harness.Need("buildah", "newuidmap"); err != nil {
		return err
	}
	lab, err := harness.Open(ctx, "bobtest")
	if err != nil {
		return err
	}
	defer closeLab(context.WithoutCancel(ctx), lab)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "workload\tbob\tbuildah\tbuildah/bob\tbob's peak memory\twith RUN's\t")
	for _, load := range workloads {
		if !strings.HasPrefix(load.name, *only) {
			continue
		}
		ours, theirs, err := compete(ctx, lab, load, *runs)
		if err != nil {
			return fmt.Errorf("%s: %w", load.name, err)
		}
		a, b := median(ours), median(theirs)
		self, tree := peaks(ours)
		fmt.Fprintf(table, "%s\t%.2f s\t%.2f s\t%.2f\t%d MB\t%d MB\t\n",
			load.name, a.Seconds(), b.Seconds(), b.Seconds()/a.Seconds(), self>>20, tree>>20)
	}
	if err := table.Flush(); err != nil || !strings.HasPrefix(importName, *only) {
		return err
	}
	if err := importCaches(ctx, lab, *runs, w); err != nil {
		return fmt.Errorf("%s: %w", importName, err)
	}
	return nil
}

func closeLab(ctx context.Context, lab *harness.Lab) {
	if err := lab.Close(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench: close the laboratory:", err)
	}
}
