package executor

import (
	"context"
	"errors"
	"sync"

	"github.com/bobbuild/bob/dockerfile"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Prefetch makes the files of the images that refs name for p present in the
// store, so that builds on them find everything there. An image that can't be had
// doesn't keep the others from being fetched; the error joins all that went wrong.
func (b *Builder) Prefetch(ctx context.Context, refs []string, p ocispec.Platform) error {
	bd, err := newBuild(b, []*dockerfile.Plan{{}}, Options{})
	if err != nil {
		return err
	}
	ctx = bd.gather(ctx)
	var mu sync.Mutex
	var failed []error
	for _, ref := range refs {
		bd.group.Go(func() error {
			img, err := bd.image(ctx, ref, p)
			if err == nil {
				_, err = img.state.rootfs.snapshot(ctx)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
			return nil
		})
	}
	failed = append(failed, bd.group.Wait(), bd.cleanUp())
	return errors.Join(failed...)
}
