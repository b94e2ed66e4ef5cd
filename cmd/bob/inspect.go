package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/inspected"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/registry/transfer"
	"github.com/peterbourgon/ff/v3/ffcli"
)

// inspectConfig holds the flags of bob inspect.
type inspectConfig struct {
	platform       cli.Text
	format         string
	raw, quiet     bool
	unpacked       unpackLimit
	registries     registryConfig
	stdout, stderr io.Writer
}

func newInspectCommand(stdout, stderr io.Writer) *ffcli.Command {
	cfg := &inspectConfig{stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet("bob inspect", flag.ContinueOnError)
	fs.Var(&cfg.platform, "platform", "show the image for `os/arch[/variant]` of an index")
	fs.StringVar(&cfg.format, "format", "text", "`format` of what is printed, text or json")
	fs.BoolVar(&cfg.raw, "raw", false, "print the manifest or index byte for byte and nothing else")
	cfg.registries.register(fs)
	registerRetryFor(fs, &cfg.registries.retryFor)
	cfg.unpacked.register(fs)
	fs.BoolVar(&cfg.quiet, "quiet", false, "print nothing but the result, and errors")
	return &ffcli.Command{
		Name:       "inspect",
		ShortUsage: "bob inspect [flags] <reference, archive or layout>",
		ShortHelp:  "Show what an image or an index is made of",
		LongHelp: "Show the platforms of an index, or the config, layers and history of an image, without downloading a layer.\n" +
			"Names are those of bob copy.",
		FlagSet: fs,
		Exec:    cfg.exec,
	}
}

func (cfg *inspectConfig) exec(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return cli.Errorf("bob inspect takes one name")
	}
	if err := transfer.CheckPlace(args[0]); err != nil {
		return cli.Errorf("%v", err)
	}
	errFormat := cli.OneOf("format", cfg.format, "text", "json")
	p, err := optionalPlatform(cfg.platform)
	o := transfer.InspectOptions{Platform: p, TempDir: os.TempDir()}
	var errLimit error
	o.MaxUnpacked, errLimit = cfg.unpacked.bytes(o.TempDir)
	if err := errors.Join(errFormat, errLimit, err, cfg.registries.check(ctx)); err != nil {
		return err
	}
	found, err := transfer.Inspect(ctx, cfg.registries.client(notices(cfg.stderr, cfg.quiet)), args[0], o)
	if err != nil {
		return interrupted(ctx, err)
	}
	if cfg.raw {
		_, err := cfg.stdout.Write(found.Raw)
		return err
	}
	v, err := inspected.New(found)
	if err != nil {
		return fmt.Errorf("inspect %s: %w", args[0], err)
	}
	if cfg.format == "json" {
		return terminal.WriteJSON(cfg.stdout, v)
	}
	return v.WriteText(cfg.stdout)
}
