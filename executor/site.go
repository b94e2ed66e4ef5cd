package executor

import (
	"context"

	"github.com/bobbuild/bob/dockerfile"
)

// A site is where a step is prepared.
type site struct {
	*build

	after *state            // what comes before the step
	stage *dockerfile.Stage // that the step is in
	// find returns what a From names there.
	find func(context.Context, dockerfile.From, *dockerfile.Stage) (*origin, error)
}

// origin returns what from names at the site.
func (at site) origin(ctx context.Context, from dockerfile.From) (*origin, error) {
	return at.find(ctx, from, at.stage)
}
