package snapshot

import (
	"context"

	"github.com/bobbuild/bob/snapshot/internal/checkout"
)

// copies is the snapshotter that copies all files.
type copies struct {
	unpacked

	checkouts *checkout.Checkouts
}

func (s *copies) prepare(ctx context.Context, _ string, below checkout.Stack) (changedFileSystem, error) {
	below.Layers = s.atLeast(1, below.Layers)
	return s.checkouts.Write(ctx, below)
}

func (s *copies) view(ctx context.Context, _ string, shown checkout.Stack) (fileSystem, error) {
	shown.Layers = s.atLeast(1, shown.Layers)
	return s.checkouts.Show(ctx, shown)
}

func (s *copies) close() error { return s.checkouts.Close() }
