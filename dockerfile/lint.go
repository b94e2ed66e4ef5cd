package dockerfile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
)

// checkArg is the build argument that takes the place of the check directive.
const checkArg = "BUILDKIT_DOCKERFILE_CHECK"

// Warning is a remark on a Dockerfile that doesn't keep it from being built.
type Warning struct {
	Location    Location
	Rule        string // name of the rule of BuildKit that was broken; "" if it is none of those
	Description string // of the rule
	URL         string // where the rule is explained; not every rule has one
	Text        string // what is wrong here
}

// String returns "Dockerfile:3: MaintainerDeprecated: Maintainer instruction …".
func (w Warning) String() string {
	if w.Rule == "" {
		return w.Location.String() + ": " + w.Text
	}
	return w.Location.String() + ": " + w.Rule + ": " + w.Text
}

// Violations returns the error that BuildKit's check=error=true makes of
// warnings: one that names the rules they broke, nil if there are none.
func Violations(warnings []Warning) error {
	rules := map[string]bool{}
	for _, w := range warnings {
		rules[w.Rule] = true
	}
	delete(rules, "")
	if len(rules) == 0 {
		return nil
	}
	return fmt.Errorf("lint violation found for rules: %s", strings.Join(slices.Sorted(maps.Keys(rules)), ", "))
}

// Lint returns the warnings about the file as such, in the order of its lines:
// what no instruction of a stage has to be carried out for. They are part of
// Plan.Warnings too; Lint gives them also where no plan can be made. It is pure,
// and every error is an *Error. With an error it returns what was found before.
func (f *File) Lint(o Options) ([]Warning, error) {
	config, err := f.checkConfig(o.BuildArgs)
	if err != nil {
		return nil, err
	}
	var found []Warning
	lint := newLinter(config, func(w Warning, at []parser.Range) {
		w.Location = f.source.of(at)
		found = append(found, w)
	})
	for _, at := range f.continuations {
		lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{at}, linter.RuleNoEmptyContinuation.Format())
	}
	for _, node := range f.nodes {
		_, _ = instructions.ParseInstructionWithLinter(node, lint) // f.mistake is its error
	}
	if err = f.mistake; err == nil {
		err = f.lintStages(lint, o)
	}
	slices.SortStableFunc(found, func(a, b Warning) int { return a.Location.Start - b.Location.Start })
	return found, err
}

// lintStages finds what takes the whole file to be found.
func (f *File) lintStages(lint *linter.Linter, o Options) error {
	f.lintStageNames(lint)
	f.lintCasing(lint)
	predefined := platformArgs(o, f.targetName(o))
	f.lintDefaults(lint, predefined.Clone())
	globals, err := f.globalArgs(o, predefined)
	if err != nil {
		return err
	}
	for i := range f.stages {
		f.lintFrom(lint, &f.stages[i], globals)
	}
	return nil
}

// checkConfig returns what is asked of the linter.
func (f *File) checkConfig(buildArgs map[string]string) (*linter.Config, error) {
	options, given := buildArgs[checkArg]
	at, name := f.source.whole(), "build argument "+checkArg
	if !given {
		options, at, name = f.check, f.checkAt, "check"
	}
	config, err := linter.ParseLintOptions(options)
	if err != nil {
		return nil, locate(fmt.Errorf("%s %q: %w", name, options, err), at)
	}
	return config, nil
}

// newLinter returns a linter that tells warn of what it finds. The warning's
// location is left to warn.
func newLinter(config *linter.Config, warn func(Warning, []parser.Range)) *linter.Linter {
	c := *config
	c.Warn = func(rule, description, url, text string, at []parser.Range) {
		warn(Warning{Rule: rule, Description: description, URL: url, Text: text}, at)
	}
	return linter.New(&c)
}

func (f *File) lintStageNames(lint *linter.Linter) {
	seen := map[string]bool{}
	for _, s := range f.stages {
		if s.Name == "" {
			continue
		}
		if s.Name == "context" || s.Name == "scratch" {
			lint.Run(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		}
		if seen[s.Name] {
			lint.Run(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		seen[s.Name] = true
	}
}

// lintCasing finds the instructions that are not written in the case of most.
// Global arguments don't count.
func (f *File) lintCasing(lint *linter.Linter) {
	type word struct {
		text string
		at   []parser.Range
	}
	var words []word
	for _, s := range f.stages {
		words = append(words, word{s.OrigCmd, s.Location})
		for _, c := range s.Commands {
			words = append(words, word{c.Name(), c.Location()})
		}
	}
	balance := 0
	for _, w := range words {
		switch w.text {
		case strings.ToLower(w.text):
			balance--
		case strings.ToUpper(w.text):
			balance++
		}
	}
	wanted, convert := "uppercase", strings.ToUpper
	if balance < 0 {
		wanted, convert = "lowercase", strings.ToLower
	}
	for _, w := range words {
		if w.text != convert(w.text) {
			lint.Run(&linter.RuleConsistentInstructionCasing, w.at, linter.RuleConsistentInstructionCasing.Format(w.text, wanted))
		}
	}
}

// lintDefaults finds the bases that have no valid name unless a build argument
// is given.
func (f *File) lintDefaults(lint *linter.Linter, predefined *environ.Map) {
	env, err := f.globalArgs(Options{}, predefined)
	if err != nil {
		return // an error of the plan, if the default is used at all
	}
	lex := expand.New(f.escape)
	for _, s := range f.stages {
		name, err := lex.Word(s.BaseName, env)
		if err != nil {
			return
		}
		if _, err := reference.ParseNormalizedNamed(name); err != nil {
			lint.Run(&linter.RuleInvalidDefaultArgInFrom, s.Location, linter.RuleInvalidDefaultArgInFrom.Format(s.BaseName))
		}
	}
}

// lintFrom checks the variables and the platform of a FROM.
func (f *File) lintFrom(lint *linter.Linter, s *instructions.Stage, globals *environ.Map) {
	lint = lint.WithMergedConfigFromComments(s.Comments)
	lex := expand.New(f.escape)
	match, err := lex.Match(s.BaseName, globals)
	f.lintUndeclared(lint, s, match, globals)
	if err != nil || match.Result == "" || s.Platform == "" {
		return
	}
	match, err = lex.Match(s.Platform, globals)
	f.lintUndeclared(lint, s, match, globals)
	const target = "TARGETPLATFORM"
	if _, ok := match.Matched[target]; ok && len(match.Matched) == 1 && len(match.Unmatched) == 0 {
		if value, _ := globals.Get(target); value == match.Result {
			lint.Run(&linter.RuleRedundantTargetPlatform, s.Location, linter.RuleRedundantTargetPlatform.Format(s.Platform))
		}
	}
	if err != nil || len(match.Matched) > 0 || len(match.Unmatched) > 0 {
		return
	}
	p, err := platforms.Parse(match.Result)
	if err != nil || strings.Contains(s.Name, p.OS) || strings.Contains(s.Name, p.Architecture) {
		return
	}
	lint.Run(&linter.RuleFromPlatformFlagConstDisallowed, s.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(match.Result))
}

// lintUndeclared finds the variables of a FROM that no global ARG declares.
func (f *File) lintUndeclared(lint *linter.Linter, s *instructions.Stage, match shell.ProcessWordResult, globals *environ.Map) {
	declared := map[string]bool{}
	for _, key := range globals.Keys() {
		declared[key] = true
	}
	for _, c := range f.globals {
		declare(declared, c)
	}
	names := slices.Sorted(maps.Keys(declared))
	for _, name := range slices.Sorted(maps.Keys(match.Unmatched)) {
		if declared[name] {
			continue
		}
		near, _ := suggest.Search(name, names, true)
		lint.Run(&linter.RuleUndefinedArgInFrom, s.Location, linter.RuleUndefinedArgInFrom.Format(name, near))
	}
}

// unusedArgs warns of build arguments that nothing in the file declares.
func (f *File) unusedArgs(buildArgs map[string]string, globals *environ.Map) []Warning {
	declared := map[string]bool{argEpoch: true}
	for _, k := range globals.Keys() {
		declared[k] = true
	}
	for _, c := range f.globals {
		declare(declared, c)
	}
	for _, s := range f.stages {
		for _, c := range s.Commands {
			declare(declared, c)
		}
	}
	var out []Warning
	names := slices.Sorted(maps.Keys(declared))
	for _, k := range slices.Sorted(maps.Keys(buildArgs)) {
		if declared[k] || isProxy(k) || strings.HasPrefix(k, "BUILDKIT_") {
			continue
		}
		text := fmt.Sprintf("build argument %s is not declared by any ARG%s", k, spelling.DidYouMean(k, names))
		out = append(out, Warning{Location: f.source.whole(), Text: text})
	}
	return out
}

func declare(names map[string]bool, c instructions.Command) {
	if c, ok := c.(*instructions.ArgCommand); ok {
		for _, arg := range c.Args {
			names[arg.Key] = true
		}
	}
}
