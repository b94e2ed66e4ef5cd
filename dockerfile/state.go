package dockerfile

import (
	"maps"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/lint"
	"github.com/bobbuild/bob/dockerfile/internal/paths"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// state is where a stage stands between two instructions.
type state struct {
	*Stage

	commands []command // with the triggers of the base image
	image    dockerspec.DockerOCIImage
	envAt    map[string]int // the first place of each variable in image.Config.Env, nil if unknown
	env      environ.Map    // what RUN and expansion see: the image's variables and the arguments
	args     []argument     // declared so far, also by the stages below
	cmdSet   bool           // this stage has a CMD
	lex      expand.Lexer

	checker    *lint.Checker // nil: nobody wants warnings
	workdirSet bool          // some WORKDIR came, here or in the stages below
}

// argument is an ARG seen by a stage; it shows in the history of its RUNs.
type argument struct{ key, value string }

// place returns where st stands.
func (st *state) place() paths.Place {
	return paths.In(st.image.Config.WorkingDir, st.image.OS)
}

// expand replaces the variables in a word by those of the image and the
// declared arguments.
func (st *state) expand(word string) (string, error) {
	match, err := st.lex.Match(word, &st.env)
	st.undefined(match.Unmatched)
	return match.Result, err
}

// expandRaw replaces variables in the text of a heredoc and leaves quotes alone.
func (st *state) expandRaw(word string) (string, error) {
	lex := expand.New('\\')
	lex.SkipProcessQuotes = true
	match, err := lex.Match(word, &st.env)
	st.undefined(match.Unmatched)
	return match.Result, err
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
		st.checker.Undefined(name, &st.env)
	}
}

// inspect shows the checker an instruction whose variables are replaced, before it is
// carried out. Files that the instruction takes from elsewhere come from sources.
func (st *state) inspect(in instructions.Command, sources []From) {
	around := lint.Setting{ShellSet: len(st.image.Config.Shell) > 0}
	if c, ok := in.(*instructions.WorkdirCommand); ok {
		around.UnknownWorkdir = !st.workdirSet && !st.place().IsAbs(c.Path)
		st.workdirSet = true // for the stages above too
	}
	if spec, ok := copySpecOf(in); ok && len(sources) == 0 {
		around.Local = spec.local()
	}
	st.checker.Instruction(in, around)
}

// arg declares arguments. In order of precedence a value is a build argument,
// the default, or the global argument of the same name. Whatever sets a
// variable last wins, be it ARG or ENV.
func (st *state) arg(c *instructions.ArgCommand) (string, error) {
	words := []string{"ARG"}
	for _, arg := range c.Args {
		st.checker.Secret("ARG", arg.Key)
		value, ok := st.scope.buildArgs[arg.Key]
		switch {
		case ok:
		case arg.Value != nil:
			var err error
			if value, err = st.expand(*arg.Value); err != nil {
				return "", err
			}
			ok = true
		default:
			value, ok = st.scope.globals.Get(arg.Key)
		}
		word := arg.Key
		if ok {
			word += "=" + value
			if !isScanArg(arg.Key) {
				st.env.Set(arg.Key, value)
			}
		}
		st.args = append(st.args, argument{arg.Key, value})
		words = append(words, word)
	}
	return strings.Join(words, " "), nil
}
