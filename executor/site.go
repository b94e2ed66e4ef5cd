package executor

import (
	"context"

	"github.com/bobbuild/bob/dockerfile"
)

// A site is where a step is prepared.
type site struct {
	*build

	after *state            // the state before the step
	stage *dockerfile.Stage // that the step is in
	// find returns the source that a From names there.
	find func(context.Context, dockerfile.From, *dockerfile.Stage) (*origin, error)
}
