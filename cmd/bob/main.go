// Command bob builds container images without root and without a daemon.
//
// This package parses flags and connects the parts. The documentation of the packages
// executor, snapshot, registry and dockerfile says what the parts do.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/limits"
	"github.com/bobbuild/bob/executor/doctor"
	"github.com/bobbuild/bob/executor/sandbox"
	"github.com/peterbourgon/ff/v3/ffcli"
)

func main() {
	sandbox.Init()
	doctor.Init()
	limits.FitMemory()
	ctx, stop := withSignals(context.Background())
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		report(os.Stderr, err)
	}
	os.Exit(exitCode(err))
}

// run runs bob with arguments in place of the state of the process. A build re-executes
// the process; see [isolation.Enter].
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := newRoot(stdin, stdout, stderr)
	if len(args) > 0 && args[0] == "help" {
		if shown, err := helpWith(root, args[1:], stdout); shown || err != nil {
			return err
		}
		args = append(slices.Clone(args[1:]), "-h")
	}
	return cli.Run(ctx, root, args, stdout)
}

func newRoot(stdin io.Reader, stdout, stderr io.Writer) *ffcli.Command {
	return &ffcli.Command{
		Name:       "bob",
		ShortUsage: "bob <command> [flags]",
		ShortHelp:  "Build container images without root and without a daemon.",
		Subcommands: []*ffcli.Command{
			newBuildCommand(stdin, stdout, stderr),
			newPushCommand(stdout, stderr),
			newCopyCommand(stdout, stderr),
			newInspectCommand(stdout, stderr),
			newProxyCommand(stdout, stderr),
			newCacheCommand(stdout),
			newDoctorCommand(stdout, stderr),
			newRegistryCommand(stdout, stderr),
			newPrefetchCommand(stderr),
			newVersionCommand(stdout),
			newHelpCommand(),
		},
		UsageFunc: func(c *ffcli.Command) string { return cli.Usage(c) + topicList() },
		Exec:      cli.ShowHelp,
	}
}

// withSignals returns a context that the first SIGINT, SIGTERM or SIGHUP ends.
// More of them change nothing: Ctrl-C on a terminal reaches a re-executed bob
// twice, from the terminal and from its parent.
func withSignals(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		sig, ok := <-ch
		if !ok {
			return
		}
		if s, ok := sig.(syscall.Signal); ok {
			cancel(&signalError{s})
		}
	}()
	return ctx, func() {
		signal.Stop(ch)
		close(ch)
		cancel(nil)
	}
}
