package main

import (
	"context"
	"flag"
	"io"
	"path/filepath"
	"strings"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/peterbourgon/ff/v3/ffcli"
)

func newPushCommand(stdout, stderr io.Writer) *ffcli.Command {
	cfg := &copyConfig{stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet("bob push", flag.ContinueOnError)
	cfg.register(fs)
	return &ffcli.Command{
		Name:       "push",
		ShortUsage: "bob push [flags] <archive or layout> <reference>...",
		ShortHelp:  "Push an archive that bob build or docker save has made",
		LongHelp: "Push an image that is in a file or a directory, as bob build -o type=oci and -o type=docker make them and\n" +
			"docker save does, to one or more references. What it is shows its content; with several images in it, name one as\n" +
			"in oci:PATH:TAG or docker-archive:FILE:REFERENCE. Standard output is the digest of the manifest and nothing else.",
		FlagSet: fs,
		Exec: func(ctx context.Context, args []string) error {
			if len(args) < 2 {
				return cli.Errorf("bob push takes an archive and at least one reference")
			}
			src, err := archivePlace(args[0])
			if err != nil {
				return err
			}
			return cfg.copy(ctx, src, args[1:])
		},
	}
}

// archivePlace returns the place that the source of a push names. Without a prefix it
// is a path.
func archivePlace(arg string) (string, error) {
	for _, prefix := range []string{"oci:", "oci-archive:", "docker-archive:", "docker://"} {
		if strings.HasPrefix(arg, prefix) {
			return arg, nil
		}
	}
	return filepath.Abs(arg)
}
