package dockerfile

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/patternmatcher"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Lint returns the warnings about the instructions of the stage and about its
// base, in the order in which they are carried out. The argument is that of
// [Stage.Steps]; its RootFS and History count here, as an image without layers
// may have any platform. Stages below are not looked at again. Lint is pure.
// With an error, an *Error, it returns what was found before.
func (s *Stage) Lint(base dockerspec.DockerOCIImage) ([]Warning, error) {
	st, err := s.enter(base)
	if err != nil {
		return nil, err
	}
	ch := &checker{at: s.Location, last: map[string]Location{}}
	ch.file = newLinter(s.scope.checks, func(w Warning, _ []parser.Range) {
		w.Location = ch.at
		ch.warnings = append(ch.warnings, w)
	})
	ch.lint = ch.file
	if len(s.scope.ignore) > 0 {
		if ch.ignored, err = patternmatcher.New(s.scope.ignore); err != nil {
			return nil, fmt.Errorf("ignore patterns: %w", err)
		}
	}
	if s.Base.Reference != "" {
		if name, err := st.lex.Word(s.scope.file.stages[s.Index].BaseName, s.scope.globals); err == nil {
			lintPlatform(ch.lint, name, s.Base.Reference, s.Platform, base)
		}
	}
	st.checker = ch
	err = st.replay()
	return ch.warnings, err
}

// checker finds what the linter has to say of the instructions of one stage. A
// nil checker looks at nothing.
type checker struct {
	file, lint *linter.Linter // as the whole file has it, and with the comments above the instruction
	at         Location       // where the next finding is
	last       map[string]Location
	ignored    *patternmatcher.PatternMatcher // nil without patterns
	warnings   []Warning
	compared   int // names, to find one near an undefined variable
}

// maxCompared bounds how many names the suggestions for undefined variables in one stage
// are looked for among. It is some tenths of a second.
const maxCompared = 1 << 18

// begin says which instruction is carried out from here on.
func (ch *checker) begin(c command) {
	if ch != nil {
		ch.at, ch.lint = c.at, ch.file.WithMergedConfigFromComments(c.Comments())
	}
}

// undefined reports the variables in a word that nothing sets, other than
// arguments declared without a value.
func (st *state) undefined(unmatched map[string]struct{}) {
	if st.checker == nil || len(unmatched) == 0 {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(unmatched)) {
		if isScanArg(name) || slices.ContainsFunc(st.args, func(a argument) bool { return a.key == name }) {
			continue
		}
		near := ""
		if st.checker.compared += st.env.Len(); st.checker.compared <= maxCompared {
			near, _ = suggest.Search(name, st.env.Keys(), true)
		}
		st.checker.lint.Run(&linter.RuleUndefinedVar, nil, linter.RuleUndefinedVar.Format(name, near))
	}
}

// isScanArg tells whether an argument is one of those that never become
// variables.
func isScanArg(key string) bool {
	return key == "BUILDKIT_SBOM_SCAN_CONTEXT" || key == "BUILDKIT_SBOM_SCAN_STAGE"
}

// inspect checks an instruction with its variables replaced, before it is
// carried out. ARG and EXPOSE are checked word by word where they are.
func (st *state) inspect(in instructions.Command, sources []From) {
	ch := st.checker
	if c, ok := in.(*instructions.WorkdirCommand); ok {
		if ch != nil && !st.workdirSet && !st.place().IsAbs(c.Path) {
			ch.lint.Run(&linter.RuleWorkdirRelativePath, nil, linter.RuleWorkdirRelativePath.Format(c.Path))
		}
		st.workdirSet = true // for the stages above too
	}
	if ch == nil {
		return
	}
	switch c := in.(type) {
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			ch.legacy(in, kv)
			ch.secret("ENV", kv.Key)
		}
	case *instructions.LabelCommand:
		for _, kv := range c.Labels {
			ch.legacy(in, kv)
		}
	case *instructions.CmdCommand:
		ch.once(in, "CMD")
		ch.shellForm(in, c.PrependShell && len(st.image.Config.Shell) == 0)
	case *instructions.EntrypointCommand:
		ch.once(in, "ENTRYPOINT")
		ch.shellForm(in, c.PrependShell && len(st.image.Config.Shell) == 0)
	case *instructions.HealthCheckCommand:
		ch.once(in, "HEALTHCHECK")
	case *instructions.CopyCommand:
		if len(sources) == 0 {
			ch.sources("Copy", c.SourcePaths)
		}
	case *instructions.AddCommand:
		ch.sources("Add", c.SourcePaths)
	}
}

// legacy finds "ENV key value".
func (ch *checker) legacy(in instructions.Command, kv instructions.KeyValuePair) {
	if kv.NoDelim {
		ch.lint.Run(&linter.RuleLegacyKeyValueFormat, nil, linter.RuleLegacyKeyValueFormat.Format(in.Name()))
	}
}

// once finds instructions of which only the last counts. The finding is at the
// one that doesn't.
func (ch *checker) once(in instructions.Command, kind string) {
	here := ch.at
	if before, ok := ch.last[kind]; ok {
		ch.at = before
		ch.lint.Run(&linter.RuleMultipleInstructionsDisallowed, nil, linter.RuleMultipleInstructionsDisallowed.Format(in.Name()))
		ch.at = here
	}
	ch.last[kind] = here
}

// shellForm finds command lines that get a shell nobody asked for.
func (ch *checker) shellForm(in instructions.Command, shell bool) {
	if shell {
		ch.lint.Run(&linter.RuleJSONArgsRecommended, nil, linter.RuleJSONArgsRecommended.Format(in.Name()))
	}
}

var (
	secretName = regexp.MustCompile(`(?i)(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)`)
	publicName = regexp.MustCompile(`(?i)(?:_|^)(?:public|file|version)(?:_|$)`)
)

// secret finds the names of secrets.
func (ch *checker) secret(instruction, key string) {
	if ch != nil && secretName.MatchString(key) && !publicName.MatchString(key) {
		ch.lint.Run(&linter.RuleSecretsUsedInArgOrEnv, nil, linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}

// port checks a word of EXPOSE with its variables replaced: "[[ip:]host:]port",
// the protocol behind a slash.
func (ch *checker) port(word string) {
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
func (ch *checker) sources(instruction string, paths []string) {
	if ch.ignored == nil || ch.ignored.Exclusions() {
		return
	}
	for _, src := range paths {
		if isDownload(src) || isRepository(src) {
			continue
		}
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

// lintPlatform compares the platform of an image with the one asked for, unless
// it is that of a named context and not the one that name is the name of.
func lintPlatform(lint *linter.Linter, name, reference string, want ocispec.Platform, image dockerspec.DockerOCIImage) {
	if own, err := normalise(name); err != nil || own != reference || isEmptyImage(image) {
		return
	}
	got := image.Platform
	if want.OS == got.OS && want.Architecture == got.Architecture {
		return
	}
	show := func(p ocispec.Platform) string { return platforms.FormatAll(platforms.Normalize(p)) }
	lint.Run(&linter.RuleInvalidBaseImagePlatform, nil, linter.RuleInvalidBaseImagePlatform.Format(name, show(want), show(got)))
}

// isEmptyImage tells whether an image has no layers.
func isEmptyImage(image dockerspec.DockerOCIImage) bool {
	if len(image.RootFS.DiffIDs) > 0 {
		return false
	}
	for _, h := range image.History {
		if !h.EmptyLayer {
			return false
		}
	}
	return true
}
