package dockerfile

import (
	"github.com/bobbuild/bob/dockerfile/internal/lint"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
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
	if st.checker, err = lint.NewChecker(s.scope.checks, s.Location, s.scope.ignore); err != nil {
		return nil, err
	}
	if s.Base.Reference != "" {
		name, err := st.lex.Word(s.scope.file.stages[s.Index].BaseName, s.scope.globals)
		if err == nil && isNameOf(name, s.Base.Reference) {
			st.checker.Base(name, s.Platform, base)
		}
	}
	err = st.replay()
	return st.checker.Found(), err
}
