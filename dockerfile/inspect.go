package dockerfile

import (
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// inspect checks an instruction with its variables replaced, before it is
// carried out. ARG and EXPOSE are checked word by word where they are.
func (st *state) inspect(in instructions.Command, sources []From) {
	ch := st.checker
	if c, ok := in.(*instructions.WorkdirCommand); ok {
		if ch != nil && !st.workdirSet && !st.place().IsAbs(c.Path) {
			ch.lint.Run(&linter.RuleWorkdirRelativePath, nil, linter.RuleWorkdirRelativePath.Format(c.Path))
		}
		st.workdirSet = true // for the stages above too
	}
	if ch == nil {
		return
	}
	switch c := in.(type) {
	case *instructions.EnvCommand:
		for _, kv := range c.Env {
			ch.legacy(in, kv)
			ch.secret("ENV", kv.Key)
		}
	case *instructions.LabelCommand:
		for _, kv := range c.Labels {
			ch.legacy(in, kv)
		}
	case *instructions.CmdCommand:
		ch.once(in, "CMD")
		ch.shellForm(in, c.PrependShell && len(st.image.Config.Shell) == 0)
	case *instructions.EntrypointCommand:
		ch.once(in, "ENTRYPOINT")
		ch.shellForm(in, c.PrependShell && len(st.image.Config.Shell) == 0)
	case *instructions.HealthCheckCommand:
		ch.once(in, "HEALTHCHECK")
	case *instructions.CopyCommand:
		if len(sources) == 0 {
			ch.sources("Copy", c.SourcePaths)
		}
	case *instructions.AddCommand:
		ch.sources("Add", c.SourcePaths)
	}
}
