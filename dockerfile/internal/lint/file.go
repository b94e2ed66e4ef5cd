package lint

import (
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
)

// A File is what the rules about a whole file look at.
type File struct {
	Stages  []instructions.Stage
	Globals []*instructions.ArgCommand // the ARG before the first FROM
	Escape  rune
}

// StageNames finds names that are reserved, and those that two stages have.
func (f *File) StageNames(lint *linter.Linter) {
	seen := map[string]bool{}
	for _, s := range f.Stages {
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

// Casing finds the instructions that are not written in the case of most.
// Global arguments don't count.
func (f *File) Casing(lint *linter.Linter) {
	type word struct {
		text string
		at   []parser.Range
	}
	var words []word
	for _, s := range f.Stages {
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

// Defaults finds the bases that have no valid name unless a build argument is given. env
// has the global arguments as they are without any.
func (f *File) Defaults(lint *linter.Linter, env *environ.Map) {
	lex := expand.New(f.Escape)
	for _, s := range f.Stages {
		name, err := lex.Word(s.BaseName, env)
		if err != nil {
			return
		}
		if _, err := reference.ParseNormalizedNamed(name); err != nil {
			lint.Run(&linter.RuleInvalidDefaultArgInFrom, s.Location, linter.RuleInvalidDefaultArgInFrom.Format(s.BaseName))
		}
	}
}

// From checks the variables and the platform of a FROM.
func (f *File) From(lint *linter.Linter, s *instructions.Stage, globals *environ.Map) {
	lint = lint.WithMergedConfigFromComments(s.Comments)
	lex := expand.New(f.Escape)
	match, err := lex.Match(s.BaseName, globals)
	f.undeclared(lint, s, match, globals)
	if err != nil || match.Result == "" || s.Platform == "" {
		return
	}
	match, err = lex.Match(s.Platform, globals)
	f.undeclared(lint, s, match, globals)
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

// undeclared finds the variables of a FROM that no global ARG declares.
func (f *File) undeclared(lint *linter.Linter, s *instructions.Stage, match shell.ProcessWordResult, globals *environ.Map) {
	declared := map[string]bool{}
	for _, key := range globals.Keys() {
		declared[key] = true
	}
	for _, c := range f.Globals {
		Declare(declared, c)
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

// Declare adds the names that c declares, if it is an ARG.
func Declare(names map[string]bool, c instructions.Command) {
	if c, ok := c.(*instructions.ArgCommand); ok {
		for _, arg := range c.Args {
			names[arg.Key] = true
		}
	}
}
