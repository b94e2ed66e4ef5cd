package source

import (
	"context"

	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/snapshot"
)

// A RootFS is a root file system. It becomes a snapshot on this disk when it is needed
// for the first time. The zero value is the empty one. A RootFS may be used by several
// goroutines and must not be copied.
type RootFS struct {
	id   string
	make func(context.Context) (*snapshot.Snapshot, error) // nil: snap, or empty
	snap *snapshot.Snapshot
	made memo.Value[*snapshot.Snapshot]
}

// Present returns the root file system that snap holds.
func Present(snap *snapshot.Snapshot) *RootFS { return &RootFS{snap: snap, id: snap.ID()} }

// Later returns a root file system that makeIt makes when it is needed. The snapshot that
// makeIt returns has the id, or "" if nothing will lie on it.
func Later(id string, makeIt func(context.Context) (*snapshot.Snapshot, error)) *RootFS {
	return &RootFS{id: id, make: makeIt}
}

// ID returns the ID of the snapshot, "" for the empty file system. It is known before the
// snapshot is made wherever a step may lie on it.
func (r *RootFS) ID() string { return r.id }

// Snapshot returns the snapshot, nil for the empty file system. It makes the snapshot
// if it doesn't exist.
func (r *RootFS) Snapshot(ctx context.Context) (*snapshot.Snapshot, error) {
	if r.make == nil {
		return r.snap, nil
	}
	return r.made.Get(ctx, r.make)
}
