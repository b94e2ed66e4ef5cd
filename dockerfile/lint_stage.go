package dockerfile

import (
	"github.com/bobbuild/bob/dockerfile/internal/lint"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
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

// SourceImage is an image that an instruction takes files from. It is immutable.
type SourceImage struct {
	Reference string   // as [From.Image]
	Text      string   // what names it: "COPY --from=alpine", "RUN --mount=from=alpine"
	Location  Location // of the instruction

	name  string // as it is written
	scope *scope
}

// SourceImages returns the images that COPY --from and mounts of the stage name,
// in the order of its instructions and each as often as it is named. The argument
// is that of [Stage.Steps]. SourceImages is pure, and every error is an *Error.
func (s *Stage) SourceImages(base dockerspec.DockerOCIImage) ([]SourceImage, error) {
	st, err := s.enter(base)
	if err != nil {
		return nil, err
	}
	var images []SourceImage
	for _, c := range st.commands {
		for i, from := range c.sources {
			if from.Image == "" {
				continue
			}
			image := SourceImage{Reference: from.Image, Location: c.at, scope: s.scope}
			switch in := c.Command.(type) {
			case *instructions.CopyCommand:
				image.name, image.Text = in.From, "COPY --from="+in.From
			case *instructions.RunCommand:
				image.name = instructions.GetMounts(in)[i].From
				image.Text = "RUN --mount=from=" + image.name
			}
			images = append(images, image)
		}
	}
	return images, nil
}

// Lint returns the warnings about the image that has the configuration. Its RootFS
// and History count, as in [Stage.Lint]. Lint is pure.
func (i *SourceImage) Lint(image dockerspec.DockerOCIImage) []Warning {
	var found []Warning
	l := lint.New(i.scope.checks, func(w Warning, _ []parser.Range) {
		w.Location = i.Location
		found = append(found, w)
	})
	if isNameOf(i.name, i.Reference) {
		lint.Platform(l, i.name, i.scope.platform, image)
	}
	return found
}
