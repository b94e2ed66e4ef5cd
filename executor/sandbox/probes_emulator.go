package sandbox

import "github.com/bobbuild/bob/executor/binfmt"

// tryEmulators tells which architectures' commands can be run.
func tryEmulators(o *probeOrder) outcome {
	dir, err := o.dir("")
	if err != nil {
		return no(err.Error(), "")
	}
	detail, refused := binfmt.Survey(o.ctx, dir, o.mode)
	if refused != nil {
		return refusal(refused)
	}
	return yes(detail)
}
