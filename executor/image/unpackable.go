package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/snapshot"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// diffKind are records of the uncompressed layers of snapshots.
const diffKind = "diff-1"

// A diffRecord describes the tar of a snapshot's layer.
type diffRecord struct {
	DiffID digest.Digest
	Size   int64 // bytes
}

// Unpackable returns the layer of snap, to be unpacked over another snapshot. Its DiffID is
// remembered in the store.
func Unpackable(ctx context.Context, store *snapshot.Store, snap *snapshot.Snapshot) (snapshot.Layer, error) {
	open := func(ctx context.Context) (io.ReadCloser, error) { return snap.Diff(ctx, nil) }
	key := recipe.Key("diff", snap.ID(), snapshot.Packing)
	var known diffRecord
	if data, err := store.Record(diffKind, key); err != nil || json.Unmarshal(data, &known) != nil {
		if known, err = measure(ctx, open); err != nil {
			return snapshot.Layer{}, fmt.Errorf("layer: %w", err)
		}
		data, err := json.Marshal(known)
		if err == nil {
			err = store.PutRecord(diffKind, key, data)
		}
		if err != nil {
			return snapshot.Layer{}, err
		}
	}
	return snapshot.Layer{
		Blob:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: known.DiffID, Size: known.Size},
		DiffID: known.DiffID, Open: open,
	}, nil
}

// measure reads what open opens.
func measure(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (diffRecord, error) {
	tar, err := open(ctx)
	if err != nil {
		return diffRecord{}, err
	}
	sum := digest.SHA256.Digester()
	size, err := io.Copy(sum.Hash(), tar)
	return diffRecord{sum.Digest(), size}, errors.Join(err, tar.Close())
}
