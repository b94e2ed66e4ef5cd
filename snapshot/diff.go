package snapshot

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
)

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
	st, err := sn.parentStack()
	if err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, err)
	}
	clock, err := layertar.NoLaterThan(latest)
	if err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, err)
	}
	return layertar.Stream(ctx, func(ctx context.Context, w io.Writer) error {
		defer st.Close()
		if err := layertar.WriteLayer(ctx, w, Tree{Root: sn.layers[0], Owners: sn.store.Owners()}, st, clock); err != nil {
			return fmt.Errorf("diff snapshot %s: %w", sn.id, err)
		}
		return nil
	}), nil
}

// parentStack returns the layers below sn, also those that it hides.
func (sn *Snapshot) parentStack() (*layers.Stack, error) {
	m, err := sn.store.readMeta(sn.id)
	if err != nil || m.Parent == "" {
		return layers.New(nil, sn.store.Owners(), sn.store.marks), err
	}
	if sn.store.indexed() {
		tree, err := sn.store.nodes(m.Parent)
		return layers.OfTree(tree, sn.store.Owners(), sn.store.marks), err
	}
	parent, err := sn.store.Snapshot(m.Parent)
	if err != nil {
		return nil, err
	}
	return layers.New(parent.layers, sn.store.Owners(), sn.store.marks), nil
}
