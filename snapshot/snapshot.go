package snapshot

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/checkout"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/bobbuild/bob/snapshot/owners"
)

// A Snapshot is a committed snapshot. It is immutable and may be used
// concurrently as long as its store is open.
type Snapshot struct {
	found  finder
	owners owners.Keeper
	id     string
	layers []string // directories in overlay format that make it up, top first; less what is only indexed
}

// openSnapshot returns the snapshot id, whose files have owners as the keeper says.
func openSnapshot(found finder, keeper owners.Keeper, id string) (*Snapshot, error) {
	layers, err := found.layers(id)
	if err != nil {
		return nil, err
	}
	return &Snapshot{found, keeper, id, layers}, nil
}

// ID returns the name under which Store.Snapshot finds the snapshot, in any
// process with the same ID mapping.
func (sn *Snapshot) ID() string { return sn.id }

// Parent returns the ID of the snapshot that this one lies on, "" if there is none.
func (sn *Snapshot) Parent() string {
	parent, err := sn.found.parent(sn.id)
	if err != nil {
		return "" // can't be: to open sn it was read
	}
	return parent
}

// stackOf returns sn, nil for an empty directory, as what a snapshotter works on.
func stackOf(sn *Snapshot) checkout.Stack {
	if sn == nil {
		return checkout.Stack{}
	}
	return checkout.Stack{ID: sn.id, Layers: sn.layers}
}

// Diff returns the layer tar, uncompressed, of what the snapshot changed against
// its parent. Its bytes are the same each time, whenever and however often it is
// called: entries are sorted, owners are those of this user namespace, and of the
// extended attributes only file capabilities are in it. Sockets are left out.
// Modification times later than latest are written as latest, if that isn't nil;
// then the bytes don't depend on when the snapshot was made either. Reading fails
// when ctx ends. The caller closes the reader, to the end of which it may read or
// not.
func (sn *Snapshot) Diff(ctx context.Context, latest *time.Time) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, context.Cause(ctx))
	}
	below, err := sn.found.stack(sn.id)
	if err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, err)
	}
	clock, err := layertar.NoLaterThan(latest)
	if err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, err)
	}
	return layertar.Stream(ctx, func(ctx context.Context, w io.Writer) error {
		defer below.Close()
		if err := layertar.WriteLayer(ctx, w, layertar.Tree{Root: sn.layers[0], Owners: sn.owners}, below, clock); err != nil {
			return fmt.Errorf("diff snapshot %s: %w", sn.id, err)
		}
		return nil
	}), nil
}
