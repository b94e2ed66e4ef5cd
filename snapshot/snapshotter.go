package snapshot

import (
	"context"

	"github.com/bobbuild/bob/snapshot/internal/checkout"
	"github.com/bobbuild/bob/snapshot/internal/content"
	"github.com/bobbuild/bob/snapshot/internal/layers"
)

// A snapshotter makes one file system of a snapshot and those below it. Its methods may be
// called concurrently.
type snapshotter interface {
	// prepare makes the file system of below that may be changed. It makes what it needs
	// in the directory dir, which the caller removes.
	prepare(ctx context.Context, dir string, below checkout.Stack) (changedFileSystem, error)
	// view is prepare of a file system that is only read.
	view(ctx context.Context, dir string, shown checkout.Stack) (fileSystem, error)
	// unpack makes snapshots of the layers, of which there is one at least, over the
	// snapshot parent, as far as they aren't there, and returns the ID of the last. Up to
	// jobs of them are in work at once, 0 for as many as there are processors.
	unpack(ctx context.Context, parent string, layers []content.Layer, jobs int) (id string, _ error)
	// close removes what is kept for later file systems.
	close() error
}

// A finder finds committed snapshots.
type finder interface {
	// layers returns the directories in overlay format that make up the snapshot id, top
	// first, without those of layers that are only indexed. It marks the snapshot as used.
	layers(id string) ([]string, error)
	// parent returns the ID of what the snapshot id lies on, "" if that is nothing.
	parent(id string) (string, error)
	// stack returns the layers below the snapshot id, which has a directory, also those that
	// it hides. The caller closes it.
	stack(id string) (*layers.Stack, error)
	// offer tells where layers are that may have to be unpacked after all, the first of
	// which lies on the snapshot below.
	offer(below string, layers []content.Layer)
}

// A fileSystem is what an active snapshot or a view has at its root.
type fileSystem interface {
	// Root returns the path of its root directory.
	Root() string
	// End ends it at once, whoever uses it.
	End() error
}

// A changedFileSystem is the file system of an active snapshot.
type changedFileSystem interface {
	fileSystem

	// Settle leaves what was changed in the directory layer, in overlay format.
	Settle(layer string) error
	// Kept says that what was changed is the snapshot id now. It ends the file system.
	Kept(id string)
}
