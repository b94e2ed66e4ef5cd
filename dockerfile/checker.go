package dockerfile

import (
	"path"
	"regexp"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/util/suggest"
	"github.com/moby/patternmatcher"
)

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

// undefined finds a variable that is not in env.
func (ch *checker) undefined(name string, env *environ.Map) {
	near := ""
	if ch.compared += env.Len(); ch.compared <= maxCompared {
		near, _ = suggest.Search(name, env.Keys(), true)
	}
	ch.lint.Run(&linter.RuleUndefinedVar, nil, linter.RuleUndefinedVar.Format(name, near))
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
