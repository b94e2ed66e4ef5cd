package executor

import (
	"context"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
)

// workdir prepares WORKDIR, whose directory belongs to the USER in
// force.
func (at site) workdir(op *dockerfile.Workdir) (*operation, error) {
	if err := at.after.knows(op.User); err != nil {
		return nil, fmt.Errorf("user %s: %w", op.User, err)
	}
	r := recipe.New("workdir")
	r.Hidden(at.after.key.String())
	r.Add("directory", op.Path)
	r.Add("USER", op.User)
	return &operation{
		key:    r.Key(),
		inputs: r.Inputs(),
		run: func(ctx context.Context, to *snapshot.Active, v *event.Vertex) error {
			owner, err := ownerIn(ctx, to, v, op.User)
			if err != nil {
				return err
			}
			return filecopy.MakeDir(to.Root(), op.Path, filecopy.Options{Owner: owner, Owners: at.Store.Owners(), Reveal: to.Reveal()})
		},
	}, nil
}
