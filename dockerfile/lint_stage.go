package dockerfile

import (
	"fmt"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
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
