package dockerfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/lint"
	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// A Warning is a remark on a Dockerfile that doesn't keep it from being built.
type Warning = lint.Warning

// Violations returns the error that BuildKit's check=error=true makes of
// warnings: one that names the rules they broke, nil if there are none.
func Violations(warnings []Warning) error { return lint.Violations(warnings) }

// checkArg is the build argument that takes the place of the check directive.
const checkArg = "BUILDKIT_DOCKERFILE_CHECK"

// Lint returns the warnings that can be found without carrying out any instruction of
// a stage, in the order of the lines. They are part of Plan.Warnings too; Lint returns
// them even if no plan can be made. It is pure, and every error is an *Error. With an
// error it returns what was found before.
func (f *File) Lint(o Options) ([]Warning, error) {
	config, err := f.checkConfig(o.BuildArgs)
	if err != nil {
		return nil, err
	}
	var found []Warning
	l := lint.New(config, func(w Warning, at []parser.Range) {
		w.Location = f.source.Of(at)
		found = append(found, w)
	})
	for _, at := range f.continuations {
		l.Run(&linter.RuleNoEmptyContinuation, []parser.Range{at}, linter.RuleNoEmptyContinuation.Format())
	}
	for _, node := range f.nodes {
		_, _ = instructions.ParseInstructionWithLinter(node, l) // f.mistake is its error
	}
	if err = f.mistake; err == nil {
		err = f.lintStages(l, o)
	}
	slices.SortStableFunc(found, func(a, b Warning) int { return a.Location.Start - b.Location.Start })
	return found, err
}

// lintStages applies the rules that compare instructions of the whole file.
func (f *File) lintStages(l *linter.Linter, o Options) error {
	file := &lint.File{Stages: f.stages, Globals: f.globals, Escape: f.escape}
	file.StageNames(l)
	file.Casing(l)
	predefined := platformArgs(o, f.targetName(o))
	if env, err := f.globalArgs(Options{}, predefined.Clone()); err == nil { // else the plan has the error, if the default is used at all
		file.Defaults(l, env)
	}
	globals, err := f.globalArgs(o, predefined)
	if err != nil {
		return err
	}
	for i := range f.stages {
		file.From(l, &f.stages[i], globals)
	}
	return nil
}

// checkConfig returns the linter's configuration, from a build argument or else from
// the check directive.
func (f *File) checkConfig(buildArgs map[string]string) (*linter.Config, error) {
	options, given := buildArgs[checkArg]
	at, name := f.source.Whole(), "build argument "+checkArg
	if !given {
		options, at, name = f.check, f.checkAt, "check"
	}
	config, err := linter.ParseLintOptions(options)
	if err != nil {
		return nil, position.Locate(fmt.Errorf("%s %q: %w", name, options, err), at)
	}
	return config, nil
}

// unusedArgs warns of build arguments that nothing in the file declares.
func (f *File) unusedArgs(buildArgs map[string]string, globals *environ.Map) []Warning {
	declared := map[string]bool{argEpoch: true}
	for _, k := range globals.Keys() {
		declared[k] = true
	}
	for _, c := range f.globals {
		lint.Declare(declared, c)
	}
	for _, s := range f.stages {
		for _, c := range s.Commands {
			lint.Declare(declared, c)
		}
	}
	var out []Warning
	names := slices.Sorted(maps.Keys(declared))
	for _, k := range slices.Sorted(maps.Keys(buildArgs)) {
		if declared[k] || isProxy(k) || strings.HasPrefix(k, "BUILDKIT_") {
			continue
		}
		text := fmt.Sprintf("build argument %s is not declared by any ARG%s", k, spelling.DidYouMean(k, names))
		out = append(out, Warning{Location: f.source.Whole(), Text: text})
	}
	return out
}
