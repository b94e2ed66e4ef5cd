package snapshot

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/bobbuild/bob/snapshot/internal/locks"
)

// flats are directories that have all files of many layers, as copies: an overlay takes
// only so many. They stay until the store is closed.
type flats struct {
	mu    sync.Mutex
	byTop map[string]*locks.Claim // by the directory of the layer on top, with all below it
}

// fewer returns lower, layers for an overlay, as at most limit directories: the lowest
// come as one. Where that ends moves in large steps only, so that the steps of a chain
// share it.
func (s *Store) fewer(ctx context.Context, lower []string, limit int) ([]string, error) {
	if len(lower) <= limit {
		return lower, nil
	}
	step := limit / 2
	top := len(lower) - (len(lower)-1)/step*step
	flat, err := s.flat(ctx, lower[top:])
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(lower[:top]), flat), nil
}

// flat returns a directory with all files of the layers.
func (s *Store) flat(ctx context.Context, layers []string) (string, error) {
	s.flats.mu.Lock()
	defer s.flats.mu.Unlock()
	if c := s.flats.byTop[layers[0]]; c != nil {
		return filepath.Join(c.Path, "fs"), nil
	}
	for i, l := range layers { // what was copied already
		if c := s.flats.byTop[l]; c != nil {
			layers = append(slices.Clone(layers[:i]), filepath.Join(c.Path, "fs"))
			break
		}
	}
	c, err := locks.NewClaim(s.own("active"))
	if err != nil {
		return "", err
	}
	root := filepath.Join(c.Path, "fs")
	if err = os.Mkdir(root, 0o700); err == nil {
		err = s.layOut(ctx, layers, root)
	}
	if err != nil {
		return "", errors.Join(err, s.discard(c))
	}
	if s.flats.byTop == nil {
		s.flats.byTop = map[string]*locks.Claim{}
	}
	s.flats.byTop[layers[0]] = c
	return root, nil
}

// dropFlats removes them.
func (s *Store) dropFlats() error {
	s.flats.mu.Lock()
	defer s.flats.mu.Unlock()
	var errs []error
	for _, c := range s.flats.byTop {
		errs = append(errs, s.discard(c))
	}
	s.flats.byTop = nil
	return errors.Join(errs...)
}
