package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"io"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/diagnosis"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/bobbuild/bob/executor/doctor"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/snapshot"
)

// doctorConfig holds the flags of bob doctor.
type doctorConfig struct {
	isolationFlags

	cache          cli.Text
	format         string
	registries     registryConfig
	stdout, stderr io.Writer
}

func newDoctorCommand(stdout, stderr io.Writer) *ffcli.Command {
	cfg := &doctorConfig{stdout: stdout, stderr: stderr}
	fs := flag.NewFlagSet("bob doctor", flag.ContinueOnError)
	fs.Var(&cfg.cache, "cache-dir", "`directory` that builds would keep layers and results in (default: bob in the user's cache)")
	cfg.register(fs, "look at what builds with --rootless need; always so without root")
	fs.StringVar(&cfg.format, "format", "table", "table or json")
	cfg.registries.register(fs)
	return &ffcli.Command{
		Name:       "doctor",
		ShortUsage: "bob doctor [flags] [registry or reference...]",
		ShortHelp:  "Find out whether builds work on this machine, and what to do if they don't",
		LongHelp: "Try all that builds need and can use, say what this machine refuses and how to have it allowed. Nothing that\n" +
			"is tried stays behind. Registries are reached as a build would; references also with its credentials.\n\n" +
			"The exit code is 0 if builds work, 3 if only those without RUN do, 1 if none does or a registry can't be reached.",
		FlagSet: fs,
		Exec:    cfg.exec,
	}
}

func (cfg *doctorConfig) exec(ctx context.Context, args []string) error {
	errFormat := cli.OneOf("format", cmp.Or(cfg.format, "table"), "table", "json")
	// Report missing files before trying the machine.
	if err := errors.Join(errFormat, cfg.registries.check(ctx), cfg.check()); err != nil {
		return err
	}
	dir, err := cacheDir(string(cfg.cache))
	if err != nil {
		return err
	}
	mode, findings := doctor.Examine(ctx, doctor.Options{Dir: dir, Rootless: cfg.rootless.Or(false), Isolation: isolation.Kind(cfg.isolation)})
	findings = append(findings, cfg.reach(ctx, args)...)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	wanted := snapshot.Snapshotter(cfg.snapshotter)
	if wanted == autoSnapshotter {
		wanted = ""
	}
	d := diagnosis.Of(mode, wanted, findings)
	if cfg.format == "json" {
		err = terminal.WriteJSON(cfg.stdout, d)
	} else {
		err = d.WriteTable(cfg.stdout)
	}
	if err != nil {
		return err
	}
	return d.Err()
}

// reachLimit bounds the time for each registry.
const reachLimit = 20 * time.Second

// reach finds out whether the registries and the socket of the proxy can be reached.
func (cfg *doctorConfig) reach(ctx context.Context, names []string) []doctor.Finding {
	client := cfg.registries.client(notices(cfg.stderr, false))
	if cfg.registries.proxied != "" && len(names) == 0 {
		names = []string{"localhost:8080"}
	}
	var findings []doctor.Finding
	for _, name := range names {
		f := doctor.Finding{Name: "registry", What: "registry " + name, Answer: doctor.Yes, Need: doctor.ForAll}
		limited, cancel := context.WithTimeout(ctx, reachLimit)
		if err := client.Reach(limited, name); err != nil {
			f.Answer, f.Why = doctor.No, err.Error()
		}
		cancel()
		findings = append(findings, f)
	}
	return findings
}
