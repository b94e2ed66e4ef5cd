package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/bobbuild/bob/dockerfile"
	"golang.org/x/sync/errgroup"
)

// Open fetches src, a *dockerfile.Download or *dockerfile.Repository, unless it
// is there already, and shows it read-only at the directory that it returns,
// until the function is called that it also returns. A build may use the
// directory as its context.
func (b *Builder) Open(ctx context.Context, src dockerfile.Source) (dir string, closeIt func() error, err error) {
	quiet := *b
	quiet.Progress = nil // its vertices would have the numbers of the build's
	bd, err := newBuild(&quiet, &dockerfile.Plan{}, Options{})
	if err != nil {
		return "", nil, err
	}
	bd.group, ctx = errgroup.WithContext(ctx)
	var f *fetched
	switch src := src.(type) {
	case *dockerfile.Download:
		f, err = bd.download(ctx, src).wait(ctx)
	case *dockerfile.Repository:
		f, err = bd.repository(ctx, src).wait(ctx)
	default:
		err = fmt.Errorf("a %T can't be opened as a directory", src)
	}
	if err = errors.Join(err, bd.group.Wait()); err != nil {
		return "", nil, err
	}
	ctx = context.WithoutCancel(ctx) // of the group, which has ended
	snap, err := f.rootfs.snapshot(ctx)
	if err != nil {
		return "", nil, err
	}
	v, err := b.Store.View(ctx, snap)
	if err != nil {
		return "", nil, err
	}
	return v.Root(), v.Close, nil
}
