package main

import (
	"context"
	"errors"
	"flag"
	"io"

	"github.com/peterbourgon/ff/v3/ffcli"
)

func newBuildCommand(stdin io.Reader, stdout, stderr io.Writer) *ffcli.Command {
	cfg := &buildConfig{stdin: stdin, stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet("bob build", flag.ContinueOnError)
	cfg.register(fs)
	return &ffcli.Command{
		Name:       "build",
		ShortUsage: "bob build [flags] <directory | URL | ->",
		ShortHelp:  "Build an image from a Dockerfile",
		LongHelp: "Build an image from a Dockerfile and the files of a directory, of a git repository\n" +
			"or archive at a URL, or of a tar on standard input (-). With -t the image is pushed to the registry it names.\n" +
			"Standard output is the digest of the image's manifest and nothing else.",
		FlagSet: fs,
		Exec:    cfg.exec,
	}
}

// exec checks the command line, enters the namespaces that the build needs,
// and builds.
func (cfg *buildConfig) exec(ctx context.Context, args []string) error {
	if len(args) == 0 && cfg.workspace.wanted() {
		return cfg.execWorkspace(ctx)
	}
	in, err := cfg.input(ctx, args)
	if err != nil {
		return err
	}
	o, err := cfg.options(ctx)
	mode, errMode := cfg.view.mode()
	check, errCall := cfg.wantsCheck()
	if err := errors.Join(err, errMode, errCall); err != nil {
		return err
	}
	in.MaxUnpacked = o.build.MaxUnpacked
	if check {
		return cfg.check(ctx, in, o, mode)
	}
	result, err := cfg.enterAndBuild(ctx, in, o, mode)
	if err != nil {
		return interrupted(ctx, err)
	}
	return cfg.result.announce(cfg.stdout, result, &o.build, cfg.output.Tags.Values)
}
