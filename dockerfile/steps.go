package dockerfile

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/paths"
	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/util/system"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Step is one instruction of a stage with all variables resolved. It shares no
// memory with other steps or with the Plan.
type Step struct {
	Text     string   // as progress shows it: "RUN make all", on one line
	Location Location // of the instruction; of the FROM for a trigger of the base
	Op       Op       // nil when only the configuration changes

	// History is the entry that the step adds to the image's, Created not
	// set. When CreatedBy is empty, as for ONBUILD, no entry is added.
	History ocispec.History
}

// Steps returns the steps of the stage, and the configuration that it ends with. RootFS
// and History belong to the whole image and are left empty in it. The
// argument is the configuration of the image that Root().Base names, also when the
// stage is based on another stage: what that one does to the configuration and to the
// visible arguments is worked out again. It is zero for a named context that holds no
// image, ignored for scratch, and never changed. A stage that a named context replaces
// has no steps. The triggers of the base come first. Steps is pure, its results are the
// caller's, and every error is an *Error.
func (s *Stage) Steps(base dockerspec.DockerOCIImage) ([]Step, dockerspec.DockerOCIImage, error) {
	var steps []Step
	st, err := s.walk(base, func(step Step, _ *state) { steps = append(steps, step) })
	if err != nil {
		return nil, dockerspec.DockerOCIImage{}, err
	}
	return steps, st.final(), nil
}

// walk goes through the steps of s and calls visit with each and the state behind it.
// It returns the last state.
func (s *Stage) walk(base dockerspec.DockerOCIImage, visit func(Step, *state)) (*state, error) {
	st, err := s.enter(base)
	if err != nil {
		return nil, err
	}
	for _, c := range st.commands {
		step, err := st.apply(c)
		if err != nil {
			return nil, position.Locate(err, c.at)
		}
		visit(step, st)
	}
	return st, nil
}

// enter returns the state before the first instruction of s, having gone
// through the stages below.
func (s *Stage) enter(base dockerspec.DockerOCIImage) (*state, error) {
	var chain []*Stage
	for below := s.Base.Stage; below != nil; below = below.Base.Stage {
		chain = append(chain, below)
	}
	st, err := s.Root().begin(base)
	if err != nil {
		return nil, err
	}
	for _, next := range slices.Backward(append([]*Stage{s}, chain...)) {
		if next.Base.Stage == nil {
			continue // the root, entered above
		}
		if err := st.replay(); err != nil {
			return nil, err
		}
		st.Stage, st.commands, st.cmdSet = next, next.commands, false
		st.image.Config.OnBuild = nil
		st.inherit()
	}
	return st, nil
}

// begin returns the state of a stage that is based on an image or scratch.
func (s *Stage) begin(base dockerspec.DockerOCIImage) (*state, error) {
	st := &state{Stage: s, lex: expand.New(s.scope.file.escape)}
	if s.Base.Reference == "" && (s.Base.Context == "" || reflect.ValueOf(base).IsZero()) {
		base = dockerspec.DockerOCIImage{Image: ocispec.Image{Platform: s.Platform}}
		if !s.replaced {
			base.Config.WorkingDir = "/"
		}
	}
	if s.replaced {
		st.image = cloneImage(base)
		st.image.Config.OnBuild = nil
		return st, nil
	}
	triggers, err := s.imageTriggers(base.Config.OnBuild)
	if err != nil {
		return nil, err
	}
	st.commands = append(triggers, s.commands...)
	st.image = cloneImage(base)
	st.image.Config.OnBuild = nil
	if st.image.OS == "" || st.image.Architecture == "" {
		st.image.Platform = s.Platform
	}
	if dir := st.image.Config.WorkingDir; dir != "" && (st.image.OS == paths.Windows || !path.IsAbs(dir)) {
		if st.image.Config.WorkingDir, err = system.NormalizeWorkdir("/", dir, st.image.OS); err != nil {
			return nil, position.Locate(fmt.Errorf("working directory %q of the base: %w", dir, err), s.Location)
		}
	}
	st.inherit()
	return st, nil
}

// inherit takes over the variables of the image a stage starts from. They are
// set anew, so that they win over arguments of the stages below.
func (st *state) inherit() {
	if st.image.OS != paths.Windows && !slices.ContainsFunc(st.image.Config.Env, func(kv string) bool { return envKey(kv) == "PATH" }) {
		st.setEnv("PATH", defaultPath)
	}
	for _, kv := range st.image.Config.Env {
		key, value, _ := strings.Cut(kv, "=")
		st.env.Set(key, value)
	}
}

// replay goes through the instructions for what they leave behind.
func (st *state) replay() error {
	for _, c := range st.commands {
		_, err := st.apply(c)
		if err == nil && st.checker != nil {
			err = st.checkCommand(c)
		}
		if err != nil {
			return position.Locate(err, c.at)
		}
	}
	return nil
}

// final returns the configuration of the finished stage.
func (st *state) final() dockerspec.DockerOCIImage {
	image := cloneImage(st.image)
	if st.result != nil {
		st.result.apply(&image)
	}
	return image
}

// apply carries out one instruction on the state.
func (st *state) apply(c command) (Step, error) {
	st.checker.Begin(c.at, c.Comments())
	in, err := st.expandCommand(c.Command)
	if err != nil {
		return Step{}, err
	}
	st.inspect(in, c.sources)
	step := Step{Text: st.text(c, in), Location: c.at}
	var createdBy string
	switch in := in.(type) {
	case *instructions.RunCommand:
		step.Op, createdBy, err = st.run(c, in)
	case *instructions.CopyCommand, *instructions.AddCommand:
		step.Op, createdBy, err = copyOp(in, c.sources, st.place())
	case *instructions.WorkdirCommand:
		step.Op, createdBy, err = st.workdir(in)
	case *instructions.ArgCommand:
		createdBy, err = st.arg(in)
	case *instructions.ExposeCommand:
		createdBy, err = st.expose(in)
	default:
		createdBy, err = st.configure(in)
	}
	if err != nil {
		return Step{}, err
	}
	step.History = st.history(createdBy, step.Op)
	return step, nil
}

// expandCommand returns the instruction with its variables replaced, where the
// language says so. The instruction itself belongs to the File, and its Expand
// would change it in place: it is copied first. ARG and EXPOSE are expanded
// where they are carried out, and RUN by its shell.
func (st *state) expandCommand(in instructions.Command) (instructions.Command, error) {
	switch c := in.(type) {
	case *instructions.EnvCommand:
		cp := *c
		cp.Env = slices.Clone(c.Env)
		return &cp, cp.Expand(st.expand)
	case *instructions.LabelCommand:
		cp := *c
		cp.Labels = slices.Clone(c.Labels)
		return &cp, cp.Expand(st.expand)
	case *instructions.AddCommand:
		cp := *c
		cp.SourcesAndDest = cloneSources(c.SourcesAndDest)
		return &cp, errors.Join(cp.Expand(st.expand), cp.ExpandRaw(st.expandRaw))
	case *instructions.CopyCommand:
		cp := *c
		cp.SourcesAndDest = cloneSources(c.SourcesAndDest)
		return &cp, errors.Join(cp.Expand(st.expand), cp.ExpandRaw(st.expandRaw))
	case *instructions.WorkdirCommand:
		cp := *c
		return &cp, cp.Expand(st.expand)
	case *instructions.UserCommand:
		cp := *c
		return &cp, cp.Expand(st.expand)
	case *instructions.VolumeCommand:
		cp := *c
		cp.Volumes = slices.Clone(c.Volumes)
		return &cp, cp.Expand(st.expand)
	case *instructions.StopSignalCommand:
		cp := *c
		return &cp, cp.Expand(st.expand)
	default:
		return in, nil
	}
}

func cloneSources(s instructions.SourcesAndDest) instructions.SourcesAndDest {
	s.SourcePaths = slices.Clone(s.SourcePaths)
	s.SourceContents = slices.Clone(s.SourceContents)
	return s
}
