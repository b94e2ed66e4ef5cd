package snapshot

import (
	"context"
	"errors"
)

func (s *Store) mountFuse(ctx context.Context, o overlay) (fileSystem, error) {
	return nil, errors.ErrUnsupported
}
