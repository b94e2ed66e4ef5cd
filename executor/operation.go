package executor

import (
	"context"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
)

// operation prepares op.
func (at site) operation(ctx context.Context, op dockerfile.Op) (*operation, error) {
	switch op := op.(type) {
	case *dockerfile.Run:
		return at.run(ctx, op)
	case *dockerfile.Copy:
		return at.copy(ctx, op)
	case *dockerfile.Workdir:
		return at.workdir(op)
	default:
		return nil, fmt.Errorf("no operation %T", op)
	}
}

// stagesOf returns the stages that op takes files from.
func stagesOf(op dockerfile.Op) (stages []*dockerfile.Stage) {
	add := func(from dockerfile.From) {
		if from.Stage != nil {
			stages = append(stages, from.Stage)
		}
	}
	switch op := op.(type) {
	case *dockerfile.Copy:
		add(op.From)
	case *dockerfile.Run:
		for _, m := range op.Mounts {
			if shown, ok := m.Shown(); ok {
				add(shown.From)
			}
		}
	case *dockerfile.Workdir: // takes none
	}
	return stages
}
