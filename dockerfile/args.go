package dockerfile

import (
	"fmt"
	"strings"

	"github.com/bobbuild/bob/dockerfile/internal/environ"
	"github.com/bobbuild/bob/dockerfile/internal/expand"
	"github.com/bobbuild/bob/dockerfile/internal/position"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// Arguments that mean something to the build itself.
const (
	argEpoch          = "SOURCE_DATE_EPOCH"
	argSyntax         = "BUILDKIT_SYNTAX"
	argHostname       = "BUILDKIT_SANDBOX_HOSTNAME"
	argCacheNamespace = "BUILDKIT_CACHE_MOUNT_NS"
)

// platformArgs returns the predefined global arguments. A build argument of
// the same name replaces one.
func platformArgs(o Options, targetStage string) *environ.Map {
	build, target := o.BuildPlatform, o.TargetPlatform
	env := &environ.Map{}
	for _, kv := range [...][2]string{
		{"BUILDPLATFORM", platforms.Format(build)},
		{"BUILDOS", build.OS},
		{"BUILDOSVERSION", build.OSVersion},
		{"BUILDARCH", build.Architecture},
		{"BUILDVARIANT", build.Variant},
		{"TARGETPLATFORM", platforms.FormatAll(target)},
		{"TARGETOS", target.OS},
		{"TARGETOSVERSION", target.OSVersion},
		{"TARGETARCH", target.Architecture},
		{"TARGETVARIANT", target.Variant},
		{"TARGETSTAGE", targetStage},
	} {
		value, ok := o.BuildArgs[kv[0]]
		if !ok {
			value = kv[1]
		}
		env.Set(kv[0], value)
	}
	return env
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

// globalArgs adds the ARGs before the first FROM to the predefined ones.
func (f *File) globalArgs(o Options, predefined *environ.Map) (*environ.Map, error) {
	lex := expand.New(f.escape)
	for _, c := range f.globals {
		if err := declareArgs(c, o.BuildArgs, predefined, lex); err != nil {
			return nil, position.Locate(err, f.source.Of(c.Location()))
		}
	}
	return predefined, nil
}

// declareArgs sets the build arguments that an ARG outside of a stage declares,
// or their defaults.
func declareArgs(c *instructions.ArgCommand, buildArgs map[string]string, env *environ.Map, lex expand.Lexer) error {
	for _, arg := range c.Args {
		value, given := buildArgs[arg.Key]
		if !given && arg.Value == nil {
			continue
		}
		if !given {
			var err error
			if value, err = lex.Word(*arg.Value, env); err != nil {
				return err
			}
		}
		env.Set(arg.Key, value)
	}
	return nil
}

// checkFrontend refuses a file that the syntax directive, or the argument that
// takes its place, gives to another frontend.
func (f *File) checkFrontend(buildArgs map[string]string) error {
	frontend, _, _ := strings.Cut(strings.TrimSpace(buildArgs[argSyntax]), " ")
	switch {
	case frontend == "":
		return f.foreign
	case frontend == "dockerfile.v0", isOwnFrontend(frontend):
		return nil
	}
	return position.Locate(fmt.Errorf("%s=%s is another frontend: only docker/dockerfile is understood", argSyntax, frontend), f.source.Whole())
}

// isScanArg tells whether an argument is one of those that never become
// variables.
func isScanArg(key string) bool {
	return key == "BUILDKIT_SBOM_SCAN_CONTEXT" || key == "BUILDKIT_SBOM_SCAN_STAGE"
}
