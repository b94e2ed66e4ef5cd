package dockerfile

import (
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say what to build of a File. They are copied by Plan.
type Options struct {
	Target         string            // stage name, in any case, or index; "" is the last stage
	BuildArgs      map[string]string // values of ARGs; those that nothing declares are reported in Plan.Warnings
	Labels         map[string]string // put on the configuration of the target after everything else
	TargetPlatform ocispec.Platform  // normalised, never zero
	BuildPlatform  ocispec.Platform  // normalised, never zero

	// Contexts are the named contexts, by name in lower case. A name may end in
	// "::" and a platform, for which alone it then counts. FROM, --from and
	// mounts that use the name of one get it in place of the stage or image.
	Contexts map[string]Context

	// Ignore holds the patterns of .dockerignore. Only warnings depend on it.
	Ignore []string

	// AllStages has the plan hold all stages of the file when no target is
	// asked for, as for a check of the whole file.
	AllStages bool

	// Unchecked leaves the mistakes in instructions of stages to [Stage.Lint],
	// which finds the warnings before them.
	Unchecked bool

	// NoCache names the stages whose [Stage.NoCache] is set, each in a form that
	// Target may have.
	NoCache []string

	// SourceEpoch answers [File.EpochSource]: the time of what that returned,
	// the zero time if it has none.
	SourceEpoch *time.Time

	// PlatformGiven says that TargetPlatform was asked for: the result is
	// then labelled with it whatever the base of the target is. Otherwise the
	// result has the platform of its base.
	PlatformGiven bool
}

// Context is what the name of a named context stands for.
type Context struct {
	// Image is a reference to resolve at its registry, or "scratch". It is ""
	// for what whoever runs the plan knows by the name: a directory, a
	// repository, a file, an image in a layout. In a Plan such a context
	// shows as [Base.Context] and [From.Context].
	Image string
}
