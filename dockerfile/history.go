package dockerfile

import (
	"fmt"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// historyComment is what BuildKit writes beside each entry; tools tell by it
// how CreatedBy is to be read.
const historyComment = "buildkit.dockerfile.v0"

// history makes the entry for a step.
func (st *state) history(createdBy string, op Op) ocispec.History {
	if createdBy == "" {
		return ocispec.History{EmptyLayer: true}
	}
	return ocispec.History{CreatedBy: createdBy, Comment: historyComment, EmptyLayer: op == nil}
}

// text returns an instruction as progress shows it. Variables that a secret is
// put into show as "****".
func (st *state) text(cmd command, in instructions.Command) string {
	code := in.Name()
	if s, ok := in.(fmt.Stringer); ok {
		code = s.String()
	}
	if c, ok := in.(*instructions.RunCommand); ok && len(c.Files) > 0 && parser.MustParseHeredoc(c.CmdLine[0]) != nil {
		code += " (" + summary(c.Files[0].Data) + ")"
	}
	if lex, ok := st.textLexer(in); ok {
		if word, err := lex.Word(code, st.masked(cmd)); err == nil {
			code = word
		}
	}
	fields := strings.Fields(code)
	if len(fields) > 0 {
		fields[0] = strings.ToUpper(fields[0])
	}
	if cmd.trigger {
		fields = append([]string{"ONBUILD"}, fields...)
	}
	return strings.Join(fields, " ")
}

// masked returns the variables, with "****" for each that a mount of c puts a secret
// into.
func (st *state) masked(c command) *environ.Map {
	mounts, err := c.mounts(func(word string) (string, error) { return st.lex.Word(word, &st.env) }) // no warnings for what is only shown
	if err != nil {
		return &st.env // reported where the mounts are made
	}
	env := &st.env
	for _, m := range mounts {
		if m.Type == instructions.MountTypeSecret && m.Env != nil {
			if env == &st.env {
				env = env.Clone()
			}
			env.Set(*m.Env, "****")
		}
	}
	return env
}

// textLexer returns how the variables of an instruction are shown, false if as
// written. A command line keeps its quotes and the variables unknown here.
func (st *state) textLexer(in instructions.Command) (expand.Lexer, bool) {
	switch in.(type) {
	case *instructions.CopyCommand, *instructions.AddCommand, *instructions.WorkdirCommand:
		return st.lex, true
	case *instructions.CmdCommand, *instructions.EntrypointCommand, *instructions.HealthCheckCommand,
		*instructions.ShellCommand, *instructions.OnbuildCommand, *instructions.MaintainerCommand:
		return expand.Lexer{}, false
	}
	lex := expand.New(st.scope.file.escape)
	lex.RawQuotes, lex.RawEscapes, lex.SkipUnsetEnv = true, true, true
	return lex, true
}

// summary returns the first line of a heredoc.
func summary(text string) string {
	first, _, more := strings.Cut(strings.TrimSpace(text), "\n")
	first = strings.TrimSuffix(first, "\r")
	if more {
		first += "..."
	}
	return first
}
