package dockerfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/bobbuild/bob/dockerfile/internal/spelling"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Plan is what has to be done to build a target. It is immutable and safe for
// concurrent use.
type Plan struct {
	Stages   []*Stage  // the target, which is the last, and what it needs; each stands after the stages that it needs
	Warnings []Warning // about the file; see [Stage.Lint] for warnings about instructions

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
		return nil, position.Locate(err, f.source.Whole())
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
			return nil, position.Locate(fmt.Errorf("no-cache-filter: %w", err), sc.file.source.Whole())
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

// addStages makes the stages of the file and resolves what they are based on.
func (sc *scope) addStages() error {
	lex := expand.New(sc.file.escape)
	for i, in := range sc.file.stages {
		s := &Stage{Index: i, Name: in.Name, Location: sc.file.source.Of(in.Location), scope: sc}
		if err := sc.resolve(s, in, lex); err != nil {
			return position.Locate(err, s.Location)
		}
		for _, c := range in.Commands {
			s.commands = append(s.commands, command{Command: c, at: sc.file.source.Of(c.Location()), node: sc.file.mounts[c]})
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
		return nil, position.Locate(fmt.Errorf("target %w", err), sc.file.source.Whole())
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

// Fingerprint returns a digest of all that decides about a plan and its steps:
// the text of the file and the options. Base images, URLs and repositories count as
// they are written. The predefined proxy arguments, Ignore and the name of the file
// don't count.
func (f *File) Fingerprint(o Options) digest.Digest {
	args := maps.Clone(o.BuildArgs)
	maps.DeleteFunc(args, func(key, _ string) bool { return isProxy(key) })
	epoch := ""
	if o.SourceEpoch != nil {
		epoch = o.SourceEpoch.UTC().String()
	}
	contexts := make(map[string]string, len(o.Contexts))
	for name, c := range o.Contexts {
		contexts[name] = c.Image
	}
	// Quoted strings can't run into one another; maps are written sorted.
	return digest.FromString(fmt.Sprintf("v2 %q %q %q %q %q %q %t %q %q", f.text, o.Target, args, o.Labels,
		platformFields(o.TargetPlatform), platformFields(o.BuildPlatform), o.PlatformGiven, contexts, epoch))
}

// platformFields returns all that tells p from others.
func platformFields(p ocispec.Platform) []string {
	return append([]string{p.OS, p.Architecture, p.Variant, p.OSVersion}, p.OSFeatures...)
}
