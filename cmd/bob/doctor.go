package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/bobbuild/bob/executor/doctor"
	"github.com/bobbuild/bob/executor/isolation"
	"github.com/bobbuild/bob/snapshot"
)

// doctorConfig is bob doctor as the command line has it.
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

// A verdict is which builds work.
type verdict string

const (
	allBuilds  verdict = "all"
	withoutRUN verdict = "without-run"
	noBuilds   verdict = "none"
)

// diagnosis is what bob doctor prints, in JSON by these names.
type diagnosis struct {
	Builds      verdict              `json:"builds"`
	Isolation   isolation.Kind       `json:"isolation,omitempty"` // that builds would have
	OneID       bool                 `json:"oneID,omitempty"`
	Snapshotter snapshot.Snapshotter `json:"snapshotter,omitempty"`
	Findings    []doctor.Finding     `json:"findings"`

	mode *isolation.Mode
}

func (cfg *doctorConfig) exec(ctx context.Context, args []string) error {
	errFormat := cli.OneOf("format", cmp.Or(cfg.format, "table"), "table", "json")
	// What isn't there now is told now.
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
	d := diagnose(mode, snapshot.Snapshotter(cfg.snapshotter), findings)
	if cfg.format == "json" {
		err = terminal.WriteJSON(cfg.stdout, d)
	} else {
		err = d.writeTable(cfg.stdout)
	}
	if err != nil {
		return err
	}
	return d.err()
}

// diagnose concludes from the findings and the mode of builds, nil if there is none.
// wanted is the snapshotter that was asked for.
func diagnose(mode *isolation.Mode, wanted snapshot.Snapshotter, findings []doctor.Finding) *diagnosis {
	d := &diagnosis{Builds: allBuilds, Findings: findings, mode: mode}
	works := make(map[string]bool)
	snapshotters := map[string]snapshot.Snapshotter{"overlay": snapshot.Overlay, "fuse": snapshot.FuseOverlay}
	for i := range findings {
		f := &findings[i]
		if works[f.Name] = f.Answer == doctor.Yes; wanted != "" && snapshotters[f.Name] == wanted {
			f.Need = doctor.ForAll
		}
		switch {
		case works[f.Name], f.Need == doctor.Optional:
		case f.Need == doctor.ForAll:
			d.Builds = noBuilds
		case d.Builds == allBuilds:
			d.Builds = withoutRUN
		}
	}
	if d.Builds == noBuilds || mode == nil {
		d.Builds = noBuilds
		return d
	}
	d.Isolation, d.OneID = mode.Isolation, mode.OneID
	if !mode.CanRun() {
		return d // and no snapshotter
	}
	switch {
	case wanted != "" && wanted != autoSnapshotter:
		d.Snapshotter = wanted
	case works["overlay"]:
		d.Snapshotter = snapshot.Overlay
	case works["fuse"]:
		d.Snapshotter = snapshot.FuseOverlay
	default:
		d.Snapshotter = snapshot.Copy
	}
	return d
}

// err returns what the exit code is made of; the findings have been shown.
func (d *diagnosis) err() error {
	switch d.Builds {
	case allBuilds:
	case withoutRUN:
		return errWithoutRUN
	case noBuilds:
		return errNoBuilds
	}
	return nil
}

func (d *diagnosis) writeTable(w io.Writer) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range d.Findings {
		answer, detail := string(f.Answer), f.Detail
		switch {
		case f.Answer == doctor.Unknown:
			answer = "?"
		case f.Answer == doctor.No && f.Need != doctor.Optional:
			answer = "NO"
		}
		if f.Why != "" {
			detail = f.Why
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", terminal.Escape(f.What), answer, terminal.Escape(detail))
	}
	_ = tw.Flush() // to a strings.Builder
	fixed := map[string]bool{}
	for _, f := range d.Findings {
		if f.Answer == doctor.No && f.Fix != "" && !fixed[f.Fix] {
			fmt.Fprintf(&b, "\n%s: %s\n", terminal.Escape(f.What), terminal.EscapeLines(f.Fix))
		}
		fixed[f.Fix] = true
	}
	switch d.Builds {
	case allBuilds:
		fmt.Fprintf(&b, "\nBuilds work: RUN gets %s, snapshots are made by %s.\n", d.mode, d.Snapshotter)
	case withoutRUN:
		b.WriteString("\nOnly builds without RUN work.\n")
	case noBuilds:
		b.WriteString("\nBuilds don't work here. What says NO above has to be mended.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
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
