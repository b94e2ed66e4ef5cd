package source

import (
	"context"
	"errors"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Prefetch makes the files of the images that refs name for p present in the store. If
// an image can't be fetched, the others are fetched all the same; the error joins
// everything that went wrong.
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
