package checkout

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/bobbuild/bob/snapshot/internal/locks"
)

// Flats are directories that have all files of many layers, as copies: an overlay takes
// only so many layers. They stay until Close. Methods may be called concurrently.
type Flats struct {
	place Place

	mu    sync.Mutex
	byTop map[string]*locks.Claim // by the directory of the layer on top, with all below it
}

// NewFlats returns no directories yet, which will be in the place.
func NewFlats(p Place) *Flats { return &Flats{place: p, byTop: map[string]*locks.Claim{}} }

// Fewer returns lower, layers for an overlay, as at most limit directories: the lowest
// come as one. Where that ends moves in large steps only, so that the steps of a chain
// share it.
func (f *Flats) Fewer(ctx context.Context, lower []string, limit int) ([]string, error) {
	if len(lower) <= limit {
		return lower, nil
	}
	step := limit / 2
	top := len(lower) - (len(lower)-1)/step*step
	flat, err := f.flat(ctx, lower[top:])
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(lower[:top]), flat), nil
}

// flat returns a directory with all files of the layers.
func (f *Flats) flat(ctx context.Context, layers []string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.byTop[layers[0]]; c != nil {
		return filepath.Join(c.Path, "fs"), nil
	}
	for i, l := range layers { // what was copied already
		if c := f.byTop[l]; c != nil {
			layers = append(slices.Clone(layers[:i]), filepath.Join(c.Path, "fs"))
			break
		}
	}
	c, err := locks.NewClaim(f.place.Active)
	if err != nil {
		return "", err
	}
	root := filepath.Join(c.Path, "fs")
	if err = os.Mkdir(root, 0o700); err == nil {
		err = f.place.layOut(ctx, layers, root)
	}
	if err != nil {
		return "", errors.Join(err, f.place.Bin.Discard(c))
	}
	f.byTop[layers[0]] = c
	return root, nil
}

// Close removes all of them.
func (f *Flats) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, c := range f.byTop {
		errs = append(errs, f.place.Bin.Discard(c))
	}
	clear(f.byTop)
	return errors.Join(errs...)
}
