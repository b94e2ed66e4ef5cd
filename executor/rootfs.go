package executor

import (
	"context"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/snapshot"
)

// A rootfs is the file system after a step. It becomes a snapshot on this disk
// when it is needed for the first time. The zero value is the empty one.
type rootfs struct {
	make func(context.Context) (*snapshot.Snapshot, error) // nil: snap, or empty
	// id is that of the snapshot, "" for the empty file system. It is known before
	// the snapshot is made, for all that a step may lie on.
	id    string
	layer *importedLayer // that makes it, over another one; nil for what isn't imported

	snap *snapshot.Snapshot // if make is nil
	made memo.Value[*snapshot.Snapshot]
}

// present is the rootfs that snap holds.
func present(snap *snapshot.Snapshot) *rootfs { return &rootfs{snap: snap, id: snap.ID()} }

// snapshot returns the rootfs's snapshot, nil for the empty file system, and
// makes it present first if it isn't.
func (r *rootfs) snapshot(ctx context.Context) (*snapshot.Snapshot, error) {
	if r.make == nil {
		return r.snap, nil
	}
	return r.made.Get(ctx, r.make)
}

// A source is a tree that COPY reads: the build context, or what an earlier
// stage or an image holds.
type source struct {
	tree *filecopy.Tree
	root string // the tree's place, for what needs a path
}

// view returns r's files as a tree for reading. It is unmounted
// when the build ends.
func (b *build) view(ctx context.Context, r *rootfs) (*source, error) {
	return b.views.Get(ctx, r, func(ctx context.Context) (*source, error) {
		snap, err := r.snapshot(ctx)
		if err != nil {
			return nil, err
		}
		v, err := b.Store.View(ctx, snap)
		if err != nil {
			return nil, err
		}
		b.onCleanUp(v.Close)
		return b.openRoot(v.Root())
	})
}

// openRoot opens the root of a snapshot as a source until the build ends.
func (b *build) openRoot(dir string) (*source, error) {
	src, err := b.openTree(dir, nil)
	if err == nil {
		src.tree.Keep(b.Store.Owners())
	}
	return src, err
}

// openTree opens dir as a source until the build ends.
func (b *build) openTree(dir string, ignore []string) (*source, error) {
	tree, err := filecopy.OpenDir(dir, ignore)
	if err != nil {
		return nil, err
	}
	b.onCleanUp(tree.Close)
	return &source{tree: tree, root: dir}, nil
}
