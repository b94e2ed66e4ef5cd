package dockerfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
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

	// NoCache are stages, each named as Target is, that [Stage.NoCache] marks.
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

// Plan is what has to be done to build a target. It is immutable and safe for
// concurrent use.
type Plan struct {
	Stages   []*Stage  // the needed ones: each after those it needs, otherwise in the order of the file; the last is the target
	Warnings []Warning // about the file; [Stage.Lint] has those about instructions

	// Strict says that nothing may be built when there is a warning that
	// [Violations] makes an error of: the check=error=true of BuildKit.
	Strict bool

	// Epoch is the value of SOURCE_DATE_EPOCH, nil without one. No time in the
	// result may be later; see https://reproducible-builds.org/specs/source-date-epoch/.
	Epoch *time.Time
}

// Target returns the stage whose image is the result.
func (p *Plan) Target() *Stage { return p.Stages[len(p.Stages)-1] }

// Plan resolves arguments, bases, platforms and references between stages. It
// is pure: equal options give equal plans. All errors are an *Error; every
// mistake that can be known without the configuration of a base image is
// reported here.
func (f *File) Plan(o Options) (*Plan, error) {
	if f.mistake != nil {
		return nil, f.mistake
	}
	o.BuildArgs = maps.Clone(o.BuildArgs)
	if err := f.checkFrontend(o.BuildArgs); err != nil {
		return nil, err
	}
	checks, err := f.checkConfig(o.BuildArgs)
	if err != nil {
		return nil, err
	}
	warnings, err := f.Lint(o)
	if err != nil {
		return nil, err
	}
	contexts, err := newNamedContexts(o.Contexts)
	if err != nil {
		return nil, locate(err, f.source.whole())
	}
	globals, err := f.globalArgs(o, platformArgs(o, f.targetName(o)))
	if err != nil {
		return nil, err
	}
	epoch, err := f.epoch(o, contexts, globals)
	if err != nil {
		return nil, err
	}
	sc := &scope{
		file: f, globals: globals, byName: map[string]*Stage{}, platform: o.TargetPlatform, contexts: contexts,
		buildArgs: o.BuildArgs, proxy: proxyEnv(o.BuildArgs), checks: checks, ignore: slices.Clone(o.Ignore),
		unchecked: o.Unchecked,
	}
	if err := sc.addStages(); err != nil {
		return nil, err
	}
	target, err := sc.target(o.Target)
	if err != nil {
		return nil, err
	}
	for _, name := range o.NoCache {
		s, err := sc.named(name)
		if err != nil {
			return nil, locate(fmt.Errorf("no-cache-filter: %w", err), sc.file.source.whole())
		}
		s.NoCache = true
	}
	target.result = &result{labels: maps.Clone(o.Labels)}
	if o.PlatformGiven {
		target.result.platform = &o.TargetPlatform
	}
	if err := sc.link(); err != nil {
		return nil, err
	}
	stages, err := sc.needed(target, o.AllStages && o.Target == "")
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, f.unusedArgs(o.BuildArgs, globals)...)
	return &Plan{Stages: stages, Epoch: epoch, Warnings: warnings, Strict: checks.ReturnAsError}, nil
}

// targetName returns the value of TARGETSTAGE.
func (f *File) targetName(o Options) string {
	switch last := f.stages[len(f.stages)-1].Name; {
	case o.Target != "":
		return o.Target
	case last != "":
		return last
	}
	return "default"
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

// addStages makes the stages of the file and resolves what they are based on.
func (sc *scope) addStages() error {
	lex := expand.New(sc.file.escape)
	for i, in := range sc.file.stages {
		s := &Stage{Index: i, Name: in.Name, Location: sc.file.source.of(in.Location), scope: sc}
		if err := s.resolve(in, lex); err != nil {
			return locate(err, s.Location)
		}
		for _, c := range in.Commands {
			s.commands = append(s.commands, command{Command: c, at: sc.file.source.of(c.Location()), node: sc.file.mounts[c]})
		}
		sc.stages = append(sc.stages, s)
		if s.Name != "" {
			sc.byName[s.Name] = s
		}
	}
	return nil
}

func (sc *scope) target(name string) (*Stage, error) {
	if name == "" {
		return sc.stages[len(sc.stages)-1], nil
	}
	s, err := sc.named(name)
	if err != nil {
		return nil, locate(fmt.Errorf("target %w", err), sc.file.source.whole())
	}
	return s, nil
}

// named returns the stage of a name, in any case, or a number.
func (sc *scope) named(name string) (*Stage, error) {
	if s, ok := sc.byName[strings.ToLower(name)]; ok {
		return s, nil
	}
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(sc.stages) {
		return sc.stages[i], nil
	}
	hint := spelling.DidYouMean(strings.ToLower(name), sc.names())
	return nil, fmt.Errorf("stage %q could not be found%s", name, hint)
}

// unusedArgs warns of build arguments that nothing in the file declares.
func (f *File) unusedArgs(buildArgs map[string]string, globals *environ.Map) []Warning {
	declared := map[string]bool{argEpoch: true}
	for _, k := range globals.Keys() {
		declared[k] = true
	}
	for _, c := range f.globals {
		declare(declared, c)
	}
	for _, s := range f.stages {
		for _, c := range s.Commands {
			declare(declared, c)
		}
	}
	var out []Warning
	names := slices.Sorted(maps.Keys(declared))
	for _, k := range slices.Sorted(maps.Keys(buildArgs)) {
		if declared[k] || isProxy(k) || strings.HasPrefix(k, "BUILDKIT_") {
			continue
		}
		text := fmt.Sprintf("build argument %s is not declared by any ARG%s", k, spelling.DidYouMean(k, names))
		out = append(out, Warning{Location: f.source.whole(), Text: text})
	}
	return out
}

func declare(names map[string]bool, c instructions.Command) {
	if c, ok := c.(*instructions.ArgCommand); ok {
		for _, arg := range c.Args {
			names[arg.Key] = true
		}
	}
}
