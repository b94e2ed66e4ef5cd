package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"sync"
	"time"

	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// packBlock is the size of the pieces that a layer is compressed in, in bytes.
// The compressed bytes depend on it and not on how many pieces are in work at
// once, so that every machine makes the same blob of the same layer.
const packBlock = 1 << 20

// A layer is one layer of an image: of a base image, or made by a step and then
// promised before it exists.
type layer struct {
	image *registry.Image    // that the layer belongs to; nil if a step made it
	of    *snapshot.Snapshot // that it is made of; nil if image is set

	begin sync.Once
	ready chan struct{} // closed when what follows is valid
	err   error
	blob  ocispec.Descriptor
	// diffID is the digest of the uncompressed tar.
	diffID digest.Digest
}

// knownLayer is a layer of a base image.
func knownLayer(l registry.Layer, img *registry.Image) *layer {
	n := &layer{image: img, ready: make(chan struct{}), blob: l.Descriptor, diffID: l.DiffID}
	close(n.ready)
	return n
}

// newLayer is the layer of a step's snapshot, yet to be made.
func newLayer(of *snapshot.Snapshot) *layer { return &layer{of: of, ready: make(chan struct{})} }

// wait returns when the layer's blob is known and lies in the store, or in the
// registry of the base image.
func (l *layer) wait(ctx context.Context) error {
	select {
	case <-l.ready:
		return l.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// start has l made, if it isn't yet, and sent to every target. It returns at
// once; the work belongs to the build's group.
func (b *build) start(ctx context.Context, l *layer) {
	l.begin.Do(func() {
		b.group.Go(func() error {
			if l.image == nil {
				l.err = b.pack(ctx, l)
				close(l.ready)
			}
			if l.err != nil {
				return l.err
			}
			b.exports.send(ctx, b, l)
			return nil
		})
	})
}

// A layerRecord is what the store remembers of the layer made of a snapshot.
type layerRecord struct {
	Blob   ocispec.Descriptor
	DiffID digest.Digest
}

const layerRecordKind = "layer"

// layerKey is the key of the layer that this build makes of the snapshot id: its
// bytes depend on the snapshot, which never changes, and on the epoch.
func (b *build) layerKey(id string) digest.Digest {
	k := newKey("layer").str(id).bool(b.plan.Epoch != nil)
	if b.plan.Epoch != nil {
		k = k.str(b.plan.Epoch.UTC().Format(time.RFC3339Nano))
	}
	return k.sum()
}

// pack makes the blob of a step's layer, unless the store has it.
func (b *build) pack(ctx context.Context, l *layer) error {
	key := b.layerKey(l.of.ID())
	rec, err := b.packed(key)
	if err != nil {
		return err
	}
	if rec != nil {
		l.blob, l.diffID = rec.Blob, rec.DiffID
		return nil
	}
	if err := b.packers.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer b.packers.Release(1)

	if err := b.compress(ctx, l); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	return b.remember(layerRecordKind, key, layerRecord{l.blob, l.diffID})
}

// packed returns what is known of the layer under key if the store still holds
// its blob, else nil.
func (b *build) packed(key digest.Digest) (*layerRecord, error) {
	data, err := b.Store.Record(layerRecordKind, key)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // as good as none
	}
	rec := &layerRecord{}
	if json.Unmarshal(data, rec) != nil || rec.Blob.Digest == "" {
		return nil, nil //nolint:nilerr,nilnil // likewise
	}
	f, err := b.Store.OpenBlob(rec.Blob.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // removed by someone
	}
	if err != nil {
		return nil, err
	}
	return rec, f.Close()
}

// compress takes the layer's tar from the snapshot through the hash and the
// compressor into the store and, at the same time, to the first target. An
// upload that breaks costs nothing but the upload: it is made again from the
// store.
func (b *build) compress(ctx context.Context, l *layer) (err error) {
	diff, err := l.of.Diff(ctx, b.plan.Epoch)
	if err != nil {
		return err
	}
	defer diff.Close()
	blob, err := b.Store.CreateBlob()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	up := b.exports.stream(ctx)
	defer up.close()

	zw, err := pgzip.NewWriterLevel(io.MultiWriter(blob, up), pgzip.DefaultCompression)
	if err != nil {
		return err
	}
	if err := zw.SetConcurrency(packBlock, runtime.NumCPU()+1); err != nil {
		return err
	}
	sum := digest.SHA256.Digester()
	if _, err := io.CopyBuffer(io.MultiWriter(sum.Hash(), zw), diff, make([]byte, packBlock)); err != nil {
		return errors.Join(err, zw.Close())
	}
	if err := zw.Close(); err != nil {
		return err
	}
	d, size, err := blob.Commit()
	if err != nil {
		return err
	}
	l.diffID = sum.Digest()
	l.blob = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: size}
	up.commit(b, d)
	return nil
}

// open opens the layer's compressed bytes, from wherever they are.
func (b *build) open(ctx context.Context, l *layer) (io.ReadCloser, error) {
	if l.image != nil {
		return l.image.Blob(ctx, l.blob)
	}
	return b.Store.OpenBlob(l.blob.Digest)
}
