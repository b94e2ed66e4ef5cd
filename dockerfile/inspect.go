package dockerfile

import (
	"slices"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// inspect checks an instruction with its variables replaced, before it is
// carried out. ARG and EXPOSE are checked word by word where they are.
func (st *state) inspect(in instructions.Command, sources []From) {
	ch := st.checker
	if c, ok := in.(*instructions.WorkdirCommand); ok {
		if ch != nil && !st.workdirSet && !st.place().IsAbs(c.Path) {
			ch.Workdir(c.Path)
		}
		st.workdirSet = true // for the stages above too
	}
	if ch == nil {
		return
	}
	switch c := in.(type) {
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			ch.Legacy(in, kv)
			ch.Secret("ENV", kv.Key)
		}
	case *instructions.LabelCommand:
		for _, kv := range c.Labels {
			ch.Legacy(in, kv)
		}
	case *instructions.CmdCommand:
		ch.Once(in, "CMD")
		ch.ShellForm(in, c.PrependShell && len(st.image.Config.Shell) == 0)
	case *instructions.EntrypointCommand:
		ch.Once(in, "ENTRYPOINT")
		ch.ShellForm(in, c.PrependShell && len(st.image.Config.Shell) == 0)
	case *instructions.HealthCheckCommand:
		ch.Once(in, "HEALTHCHECK")
	case *instructions.CopyCommand:
		if len(sources) == 0 {
			ch.Sources("Copy", ofContext(c.SourcePaths))
		}
	case *instructions.AddCommand:
		ch.Sources("Add", ofContext(c.SourcePaths))
	}
}

// ofContext returns the sources that are files of the build context.
func ofContext(sources []string) []string {
	return slices.DeleteFunc(slices.Clone(sources), func(src string) bool { return isDownload(src) || isRepository(src) })
}
