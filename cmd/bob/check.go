package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
	"github.com/bobbuild/bob/cmd/bob/internal/input"
	"github.com/bobbuild/bob/cmd/bob/internal/terminal"
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/progress"
)

// wantsCheck reports whether --check or --call=check asks for a check.
func (cfg *buildConfig) wantsCheck() (bool, error) {
	switch cfg.call {
	case "", "build":
		return cfg.checkOnly, nil
	case "check", "lint":
		return true, nil
	case "outline", "targets", "subrequests.describe":
		return false, cli.About("call", "", cli.Errorf("--call=%s is not supported; want build or check", cfg.call))
	default:
		return false, cli.Wrong("call", cfg.call, "want build or check")
	}
}

// check prints the warnings about a Dockerfile on standard output and builds
// nothing. It needs no namespaces and leaves no files.
func (cfg *buildConfig) check(ctx context.Context, in *input.Input, o *options, mode progress.Mode) (err error) {
	scratch, err := os.MkdirTemp("", "bob-check-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	src, err := in.Open(ctx, scratch, input.FetchTo(scratch, cfg.fetcher(scratch, &o.build, notices(cfg.stderr, mode == progress.Quiet || mode == progress.RawJSON))))
	if err != nil {
		return err
	}
	o.plan.AllStages, o.plan.Unchecked, o.plan.Ignore = true, true, src.Ignore
	o.plan.SourceEpoch = &time.Time{} // no warning depends on it
	warnings, err := cfg.findings(ctx, src.Dockerfile, o, mode)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	printed := printFindings(cfg.stdout, warnings, err == nil)
	return errors.Join(err, printed)
}

// findings returns the warnings of BuildKit's rules in the order of their lines. The
// error says what kept it from finding more, or that warnings are errors here.
func (cfg *buildConfig) findings(ctx context.Context, file *dockerfile.File, o *options, mode progress.Mode) ([]dockerfile.Warning, error) {
	plan, err := file.Plan(o.plan)
	if err != nil {
		warnings, _ := file.Lint(o.plan) // its error is the plan's
		return warnings, err
	}
	view, err := newView(mode, cfg.stderr)
	if err != nil {
		return nil, err
	}
	builder := &executor.Builder{Registry: cfg.registries.client(warnIn(view)), Progress: view.Event}
	warnings, err := builder.Check(ctx, plan)
	err = errors.Join(err, view.Close())
	warnings = slices.DeleteFunc(warnings, func(w dockerfile.Warning) bool { return w.Rule == "" })
	slices.SortStableFunc(warnings, func(a, b dockerfile.Warning) int { return a.Location.Start - b.Location.Start })
	if err == nil && plan.Strict {
		err = dockerfile.Violations(warnings)
	}
	return warnings, err
}

// printFindings writes warnings as buildx does. The error is errWarned if there
// are any and complete is set, which says that the check came to its end.
func printFindings(w io.Writer, warnings []dockerfile.Warning, complete bool) error {
	var b strings.Builder
	switch n := len(warnings); {
	case n == 0 && complete:
		b.WriteString("Check complete, no warnings found.\n")
	case n == 0:
	case n == 1:
		b.WriteString("Check complete, 1 warning has been found!\n")
	default:
		fmt.Fprintf(&b, "Check complete, %d warnings have been found!\n", n)
	}
	for _, f := range warnings {
		fmt.Fprintf(&b, "\nWARNING: %s", f.Rule)
		if f.URL != "" {
			fmt.Fprintf(&b, " - %s", f.URL)
		}
		fmt.Fprintf(&b, "\n%s\n%s", f.Text, f.Location.Excerpt())
	}
	if len(warnings) > 0 && !complete {
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, terminal.EscapeLines(b.String()))
	if err == nil && len(warnings) > 0 && complete {
		err = errWarned
	}
	return err
}
