package executor

import (
	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/explain"
)

// A task is a step with its place in the build.
type task struct {
	dockerfile.Step
	stage  *dockerfile.Stage
	place  int // among the steps of stage
	book   *explain.Notebook
	number string // as in the progress: "[2/5]"
	// demand starts the stages that this step and those behind it take files from.
	demand func()
}

// title returns the title of t in the progress.
func (t task) title() string { return t.number + " " + t.Text }
