package source

import (
	"context"
	"errors"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Prefetch makes the files of the images that refs name for p present in the store. An
// image that can't be had doesn't keep the others from being fetched; the error joins
// all that went wrong.
func (s *Sources) Prefetch(ctx context.Context, refs []string, p ocispec.Platform) error {
	var all sync.WaitGroup
	failed := make([]error, len(refs))
	for i, ref := range refs {
		all.Go(func() {
			img, err := s.Image(ctx, ref, p)
			if err == nil {
				_, err = img.RootFS.Snapshot(ctx)
			}
			failed[i] = err
		})
	}
	all.Wait()
	return errors.Join(failed...)
}
