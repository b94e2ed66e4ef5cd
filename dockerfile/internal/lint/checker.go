package lint

import (
	"fmt"
	"path"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/containers/storage/pkg/regexp"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/patternmatcher"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Checker applies the linter's rules to the instructions of one stage. With a nil
// Checker, Begin, Instruction, Secret and Port do nothing.
type Checker struct {
	file, lint *linter.Linter    // lint is file with what the comments above the instruction ask for
	at         position.Location // where the next finding is
	last       map[string]position.Location
	ignored    *patternmatcher.PatternMatcher // nil without patterns
	found      []Warning
	compared   int // names, to find one near an undefined variable
}

// NewChecker returns a checker that begins at the FROM of a stage. The patterns say what
// is left out of the build context.
func NewChecker(config *linter.Config, from position.Location, patterns []string) (*Checker, error) {
	ch := &Checker{at: from, last: map[string]position.Location{}}
	ch.file = New(config, func(w Warning, _ []parser.Range) {
		w.Location = ch.at
		ch.found = append(ch.found, w)
	})
	ch.lint = ch.file
	if len(patterns) > 0 {
		var err error
		if ch.ignored, err = patternmatcher.New(patterns); err != nil {
			return nil, fmt.Errorf("ignore patterns: %w", err)
		}
	}
	return ch, nil
}

// Found returns the warnings so far.
func (ch *Checker) Found() []Warning { return ch.found }

// maxCompared bounds how many names the suggestions for undefined variables in one stage
// are looked for among. It is some tenths of a second.
const maxCompared = 1 << 18

// Begin says which instruction is carried out from here on, and the comments above it.
func (ch *Checker) Begin(at position.Location, comments []string) {
	if ch != nil {
		ch.at, ch.lint = at, ch.file.WithMergedConfigFromComments(comments)
	}
}

// Base compares the platform of the base image with the one that the stage is for.
func (ch *Checker) Base(name string, want ocispec.Platform, image dockerspec.DockerOCIImage) {
	Platform(ch.lint, name, want, image)
}

// A Setting is what the rules look at around an instruction.
type Setting struct {
	UnknownWorkdir bool     // a relative WORKDIR starts from one that the file doesn't set
	ShellSet       bool     // the image has a shell of its own
	Local          []string // the sources of COPY or ADD that are files of the build context
}

// Instruction checks an instruction whose variables are replaced. ARG and EXPOSE are
// checked word by word, by Secret and Port.
func (ch *Checker) Instruction(in instructions.Command, around Setting) {
	if ch == nil {
		return
	}
	switch c := in.(type) {
	case *instructions.WorkdirCommand:
		if around.UnknownWorkdir {
			ch.lint.Run(&linter.RuleWorkdirRelativePath, nil, linter.RuleWorkdirRelativePath.Format(c.Path))
		}
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			ch.legacy(in, kv)
			ch.Secret("ENV", kv.Key)
		}
	case *instructions.LabelCommand:
		for _, kv := range c.Labels {
			ch.legacy(in, kv)
		}
	case *instructions.CmdCommand:
		ch.once(in, "CMD")
		ch.shellForm(in, c.PrependShell && !around.ShellSet)
	case *instructions.EntrypointCommand:
		ch.once(in, "ENTRYPOINT")
		ch.shellForm(in, c.PrependShell && !around.ShellSet)
	case *instructions.HealthCheckCommand:
		ch.once(in, "HEALTHCHECK")
	case *instructions.CopyCommand:
		ch.sources("Copy", around.Local)
	case *instructions.AddCommand:
		ch.sources("Add", around.Local)
	}
}

// Undefined finds a variable that is not in env.
func (ch *Checker) Undefined(name string, env *environ.Map) {
	near := ""
	if ch.compared += env.Len(); ch.compared <= maxCompared {
		near, _ = suggest.Search(name, env.Keys(), true)
	}
	ch.lint.Run(&linter.RuleUndefinedVar, nil, linter.RuleUndefinedVar.Format(name, near))
}

// legacy finds "ENV key value".
func (ch *Checker) legacy(in instructions.Command, kv instructions.KeyValuePair) {
	if kv.NoDelim {
		ch.lint.Run(&linter.RuleLegacyKeyValueFormat, nil, linter.RuleLegacyKeyValueFormat.Format(in.Name()))
	}
}

// once finds instructions of which only the last counts. The finding is at the
// one that doesn't.
func (ch *Checker) once(in instructions.Command, kind string) {
	here := ch.at
	if before, ok := ch.last[kind]; ok {
		ch.at = before
		ch.lint.Run(&linter.RuleMultipleInstructionsDisallowed, nil, linter.RuleMultipleInstructionsDisallowed.Format(in.Name()))
		ch.at = here
	}
	ch.last[kind] = here
}

// shellForm finds command lines that get a shell nobody asked for.
func (ch *Checker) shellForm(in instructions.Command, shell bool) {
	if shell {
		ch.lint.Run(&linter.RuleJSONArgsRecommended, nil, linter.RuleJSONArgsRecommended.Format(in.Name()))
	}
}

var (
	secretName = regexp.Delayed(`(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`)
	publicName = regexp.Delayed(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
)

// Secret finds the names of secrets.
func (ch *Checker) Secret(instruction, key string) {
	if ch != nil && secretName.MatchString(key) && !publicName.MatchString(key) {
		ch.lint.Run(&linter.RuleSecretsUsedInArgOrEnv, nil, linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}

// Port checks a word of EXPOSE with its variables replaced: "[[ip:]host:]port",
// the protocol behind a slash.
func (ch *Checker) Port(word string) {
	if ch == nil {
		return
	}
	host, port := "", word
	if i := strings.LastIndexByte(word, ':'); i >= 0 {
		host, port = word[:i], word[i+1:]
	}
	number, protocol, _ := strings.Cut(port, "/")
	if lower := strings.ToLower(protocol); number == "" || lower != "" && lower != "tcp" && lower != "udp" && lower != "sctp" {
		return // an error
	} else if lower != protocol {
		ch.lint.Run(&linter.RuleExposeProtoCasing, nil, linter.RuleExposeProtoCasing.Format(word))
	}
	if strings.Trim(host, ":") != "" || strings.Count(host, ":") > 1 {
		ch.lint.Run(&linter.RuleExposeInvalidFormat, nil, linter.RuleExposeInvalidFormat.Format(word))
	}
}

// sources finds files that the ignore patterns leave out of the context.
// Where a pattern brings files back nothing can be said of directories.
func (ch *Checker) sources(instruction string, paths []string) {
	if ch.ignored == nil || ch.ignored.Exclusions() {
		return
	}
	for _, src := range paths {
		src = path.Clean(src)
		if (src == "." || src == "/") && !ignoresAll(ch.ignored) {
			continue
		}
		if ok, err := ch.ignored.MatchesOrParentMatches(src); err == nil && ok {
			ch.lint.Run(&linter.RuleCopyIgnoredFile, nil, linter.RuleCopyIgnoredFile.Format(instruction, src))
		}
	}
}

func ignoresAll(patterns *patternmatcher.PatternMatcher) bool {
	for _, p := range patterns.Patterns() {
		switch p.String() {
		case "*", "**", "**/*":
			return true
		}
	}
	return false
}
