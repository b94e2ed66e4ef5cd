package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/peterbourgon/ff/v3/ffcli"
)

// version is set when the binary is linked.
var version = "devel"

func newVersionCommand(stdout io.Writer) *ffcli.Command {
	return &ffcli.Command{
		Name:       "version",
		ShortUsage: "bob version",
		ShortHelp:  "Print the version",
		Exec: func(_ context.Context, args []string) error {
			if len(args) > 0 {
				return cli.Errorf("bob version takes no arguments")
			}
			_, err := fmt.Fprintf(stdout, "bob %s %s/%s %s\n", version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}
