package dockerfile

import (
	"fmt"
	"maps"
	"slices"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Stage is a FROM and the instructions that belong to it. It is immutable and
// safe for concurrent use.
type Stage struct {
	Index    int    // position in the file, from 0
	Name     string // AS name in lower case, "" without one
	Base     Base
	Platform ocispec.Platform // of the base image; with a stage as base, of that one; with scratch, of the target
	Location Location         // of the FROM
	NoCache  bool             // its steps are to run even if their results are known

	scope    *scope
	commands []command
	sources  []*Stage // of COPY --from and of mounts
	replaced bool     // by a named context: the commands are not carried out
	result   *result  // of the target; nil for other stages
}

// Base is what a stage starts from: an image, an earlier stage, a named context
// that is no image of a registry, or scratch if all fields are zero.
type Base struct {
	Reference string // normalised, as docker.io/library/busybox:latest
	Stage     *Stage
	Context   string // key of [Options.Contexts]
}

// From is where files are taken from: the build context (zero), a stage, an
// image, a named context that is no image, or scratch, where nothing is.
type From struct {
	Stage   *Stage
	Image   string // normalised reference, to be resolved for [Stage.TargetPlatform] of the stage that names it
	Context string // key of [Options.Contexts]
	Scratch bool
}

// scope is what all stages of one plan have in common. It doesn't change once
// the plan is made.
type scope struct {
	file      *File
	globals   *environ.Map // predefined and global arguments
	buildArgs map[string]string
	proxy     []string // variables that every RUN gets
	platform  ocispec.Platform
	stages    []*Stage // all of the file
	byName    map[string]*Stage
	checks    *linter.Config
	ignore    []string
	unchecked bool // as in the options
	contexts  namedContexts
	others    bool // some --from names no stage, or a mount has none
}

// names returns the names of the stages, sorted.
func (sc *scope) names() []string { return slices.Sorted(maps.Keys(sc.byName)) }

// command is an instruction of a stage.
type command struct {
	instructions.Command

	at      Location
	node    *parser.Node // of a RUN with mounts
	sources []From       // of COPY --from, or of each mount of a RUN
	trigger bool         // came by ONBUILD
}

// result is what is done to the image of the target at the very end.
type result struct {
	labels   map[string]string
	platform *ocispec.Platform // nil: that of the base
}

// Needs returns the stages that must be built before this one is complete: its
// base and the stages that it copies from or mounts, in the order of the file. A
// trigger in the configuration of a base image may need another stage. That stage
// shows in an Op of [Stage.Steps] only, always stands earlier in the file, and need not
// be part of the Plan.
func (s *Stage) Needs() []*Stage {
	var out []*Stage
	if s.Base.Stage != nil {
		out = append(out, s.Base.Stage)
	}
	for _, src := range s.sources {
		if !slices.Contains(out, src) {
			out = append(out, src)
		}
	}
	slices.SortFunc(out, func(a, b *Stage) int { return a.Index - b.Index })
	return out
}

// Insecure returns where the stage has its first RUN --security=insecure, and false if
// it has no such RUN. A RUN that a trigger of a base image brings shows in
// [Stage.Steps] only.
func (s *Stage) Insecure() (Location, bool) {
	return s.firstRun(func(in *instructions.RunCommand) bool {
		return instructions.GetSecurity(in) == instructions.SecurityInsecure
	})
}

// HostNetwork returns where the stage has its first RUN --network=host, and false if it
// has no such RUN. Triggers count as in [Stage.Insecure].
func (s *Stage) HostNetwork() (Location, bool) {
	return s.firstRun(func(in *instructions.RunCommand) bool {
		return instructions.GetNetwork(in) == instructions.NetworkHost
	})
}

// Runs returns where the stage has its first RUN, and false if it has no RUN. Triggers
// count as in [Stage.Insecure].
func (s *Stage) Runs() (Location, bool) {
	return s.firstRun(func(*instructions.RunCommand) bool { return true })
}

// firstRun returns where the first RUN is for which is holds, false if there is none.
func (s *Stage) firstRun(is func(*instructions.RunCommand) bool) (Location, bool) {
	for _, c := range s.commands {
		if in, ok := c.Command.(*instructions.RunCommand); ok && is(in) {
			return c.at, true
		}
	}
	return Location{}, false
}

// Root returns the stage at which the chain of bases begins: itself unless its
// base is a stage. Root().Base is an image, a named context or scratch.
func (s *Stage) Root() *Stage {
	for s.Base.Stage != nil {
		s = s.Base.Stage
	}
	return s
}

// Title returns the name that progress shows for the stage, as in
// "[build 2/5]": the AS name, "stage-1" for an unnamed one, and nothing when
// the file has one stage only, which copies from no image and has no mounts.
func (s *Stage) Title() string {
	if len(s.scope.stages) == 1 && !s.scope.others {
		return ""
	}
	return s.label()
}

// TargetPlatform returns the platform that is built for. Images that a --from
// of the stage names are resolved for it, whatever the platform of the stage.
func (s *Stage) TargetPlatform() ocispec.Platform { return s.scope.platform }

// SeesTarget reports whether an ARG of the stage, or of a stage below it, declares a
// variable that tells the target platform. Without such an ARG, the stage is the same
// for every target platform that leaves its own platform the same.
func (s *Stage) SeesTarget() bool {
	for ; s != nil; s = s.Base.Stage {
		for _, c := range s.commands {
			arg, ok := c.Command.(*instructions.ArgCommand)
			if ok && slices.ContainsFunc(arg.Args, func(a instructions.KeyValuePairOptional) bool {
				return slices.Contains([]string{"TARGETPLATFORM", "TARGETOS", "TARGETOSVERSION", "TARGETARCH", "TARGETVARIANT"}, a.Key)
			}) {
				return true
			}
		}
	}
	return false
}

// String returns the name of the stage, or "stage-1" for an unnamed one.
func (s *Stage) String() string { return s.label() }

func (s *Stage) label() string {
	if s.Name != "" {
		return s.Name
	}
	return fmt.Sprintf("stage-%d", s.Index)
}

// DidYouMean returns " (did you mean x?)" if the name of the base image is nearly the
// name of a stage or of a common image, and "" otherwise. It completes the message that
// the image was not found.
func (s *Stage) DidYouMean() string {
	image, err := familiar(s.Base.Reference)
	if err != nil {
		return ""
	}
	names := s.scope.names()
	for _, name := range []string{"alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu"} {
		names = append(names, name, name+":latest")
	}
	return spelling.DidYouMean(image, names)
}
