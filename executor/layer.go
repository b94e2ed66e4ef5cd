package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bobbuild/bob/executor/recipe"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A layer is one layer of an image: of a base image, or made by a step. Each format
// that the image is written in has it as a blob of its own.
type layer struct {
	image *registry.Image    // that the layer belongs to; nil if a step made it
	base  registry.Layer     // as image has it
	of    *snapshot.Snapshot // that it is made of; nil if image is set
	// made is the compression of a layer of image that is a step's result, "" if it
	// is the base's: another one is made of its content where the format wants that.
	made string

	wanted atomic.Bool                     // is part of the result
	step   atomic.Pointer[dockerfile.Step] // a step that has it made, nil if it is the base's
	mu     sync.Mutex
	blobs  map[string]*blob // by compression, "" for that of image
}

// A blob is a layer as it is kept and sent, promised before it exists.
type blob struct {
	*layer

	as *snapshot.Compression // nil: the blob of the image

	begin sync.Once
	ready chan struct{} // closed when what follows is valid
	err   error
	desc  ocispec.Descriptor // as if the image were OCI's
	// diffID is the digest of the uncompressed tar.
	diffID digest.Digest
}

// knownLayer is a layer of a base image.
func knownLayer(l registry.Layer, img *registry.Image) *layer { return &layer{image: img, base: l} }

// in returns the blob that l is in an image of format f.
func (l *layer) in(f *Format) *blob {
	key, as := f.Compression.String(), &f.Compression
	if l.image != nil && f.keeps(l) {
		key, as = "", nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	bl := l.blobs[key]
	if bl != nil {
		return bl
	}
	bl = &blob{layer: l, as: as, ready: make(chan struct{})}
	if as == nil {
		bl.desc, bl.diffID = l.base.Descriptor, l.base.DiffID
		close(bl.ready)
	}
	if l.blobs == nil {
		l.blobs = make(map[string]*blob)
	}
	l.blobs[key] = bl
	return bl
}

// wait returns when the blob is known and lies in the store, or in the registry of
// the base image.
func (bl *blob) wait(ctx context.Context) error {
	select {
	case <-bl.ready:
		return bl.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// start has the blobs of l made, if they aren't yet, and sent to every target. It
// returns at once; the work belongs to the build's group.
func (b *build) start(l *layer) {
	l.wanted.Store(true)
	for _, f := range b.exports.formats {
		b.startBlob(l.in(f))
	}
}

// startBlob is start of one blob. It is sent only if it is part of what is pushed.
func (b *build) startBlob(bl *blob) {
	bl.begin.Do(func() {
		b.group.Go(func() error {
			if bl.as != nil {
				bl.err = bl.placed(b.pack(b.life, bl))
				close(bl.ready)
			}
			if bl.err != nil {
				return bl.err
			}
			if b.exports.pushes(bl) {
				b.exports.send(b, bl)
			}
			return nil
		})
	})
}

// placed gives err the place of the step that made l, if one did: what it left is no
// layer, or there is no room for it.
func (l *layer) placed(err error) error {
	if step := l.step.Load(); step != nil && err != nil {
		return locate(err, *step)
	}
	return err
}

// A layerRecord is what the store remembers of the layer made of a snapshot.
type layerRecord struct {
	Blob   ocispec.Descriptor
	DiffID digest.Digest
}

const layerRecordKind = "layer-2"

// layerKey is the key of the blob bl. The bytes of one made of a snapshot depend on
// that, which never changes, on how it is packed and on the epoch.
func (b *build) layerKey(bl *blob) digest.Digest {
	if bl.image != nil {
		return recipe.Key("base layer", bl.base.DiffID.String(), bl.as.String(), snapshot.Packing)
	}
	return b.stepLayerKey(bl.of.ID(), bl.as.String())
}

// stepLayerKey is the key of the blob, compressed as as, of the snapshot id.
func (b *build) stepLayerKey(id, as string) digest.Digest {
	epoch := ""
	if b.plan.Epoch != nil {
		epoch = b.plan.Epoch.UTC().Format(time.RFC3339Nano)
	}
	return recipe.Key("layer", id, epoch, as, snapshot.Packing)
}

// pack makes the blob bl, unless the store has it.
func (b *build) pack(ctx context.Context, bl *blob) error {
	key := b.layerKey(bl)
	rec, err := b.packed(key)
	if err != nil {
		return err
	}
	if rec != nil {
		bl.desc, bl.diffID = rec.Blob, rec.DiffID
		return nil
	}
	if err := b.packers.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer b.packers.Release(1)

	if err := b.compress(ctx, bl); err != nil {
		return fmt.Errorf("layer: %w", err)
	}
	return b.results.remember(layerRecordKind, key, layerRecord{bl.desc, bl.diffID})
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
	has, err := b.Store.HasBlob(rec.Blob.Digest, rec.Blob.Size)
	if !has {
		return nil, err
	}
	return rec, nil
}

// copySize is how many bytes of a layer are handled at once. More isn't faster, and takes
// memory from the compressor where there is little.
const copySize = 256 << 10

// compress makes the blob in the store and, at the same time, at the first target. An
// upload that breaks costs nothing but the upload: it is made again from the store.
func (b *build) compress(ctx context.Context, bl *blob) error {
	for {
		err := b.compressOnce(ctx, bl)
		if e, ok := errors.AsType[*registry.Error](err); !ok || !e.Again() {
			return err
		}
	}
}

// compressOnce is compress for a layer of which the base came undamaged.
func (b *build) compressOnce(ctx context.Context, bl *blob) error {
	up := b.exports.stream(ctx, bl)
	defer up.close()
	made, err := b.makeBlob(ctx, bl, up)
	if err != nil {
		return err
	}
	bl.desc, bl.diffID = made.Blob, made.DiffID
	up.commit(made.Blob.Digest)
	return nil
}

// makeBlob takes the layer's tar through the hash and the compressor into the store
// and to w.
func (b *build) makeBlob(ctx context.Context, bl *blob, w io.Writer) (made layerRecord, err error) {
	content, err := b.content(ctx, bl.layer)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	made, err = b.writeBlob(bl.as, content, w)
	if want := bl.base.DiffID; err == nil && bl.image != nil && made.DiffID != want {
		return made, fmt.Errorf("%s: %w", bl.base.Digest, &snapshot.DiffIDError{Want: want, Got: made.DiffID})
	}
	return made, err
}

// writeBlob compresses content, a layer's tar, into the store and to w.
func (b *build) writeBlob(as *snapshot.Compression, content io.Reader, w io.Writer) (made layerRecord, err error) {
	out, err := b.Store.CreateBlob()
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	zw, err := as.NewWriter(io.MultiWriter(out, w))
	if err != nil {
		return made, err
	}
	sum := digest.SHA256.Digester()
	if _, err := io.CopyBuffer(io.MultiWriter(sum.Hash(), zw), content, make([]byte, copySize)); err != nil {
		return made, errors.Join(err, zw.Close())
	}
	if err := zw.Close(); err != nil {
		return made, err
	}
	d, size, err := out.Commit()
	if err != nil {
		return made, err
	}
	desc := ocispec.Descriptor{MediaType: layerMediaType(as.Method), Digest: d, Size: size}
	return layerRecord{Blob: desc, DiffID: sum.Digest()}, nil
}

// content opens the uncompressed tar of l.
func (b *build) content(ctx context.Context, l *layer) (io.ReadCloser, error) {
	if l.image == nil {
		return l.of.Diff(ctx, b.plan.Epoch)
	}
	compressed, err := l.image.Blob(ctx, l.base.Descriptor)
	if err != nil {
		return nil, err
	}
	plain, err := bounded.Decompress(compressed)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: decompress: %w", l.base.Digest, err), compressed.Close())
	}
	d := &decompressed{plain, compressed}
	return struct {
		io.Reader
		io.Closer
	}{bounded.NewBudget(b.opts.MaxUnpacked).Reader(d), d}, nil
}

// decompressed is the content of a compressed stream, which is closed with it. The
// stream is read to its end, where it says whether its bytes are the right ones: if
// they aren't, that is the error, whatever else it looks like.
type decompressed struct{ plain, from io.ReadCloser }

// Read implements io.Reader.
func (d *decompressed) Read(p []byte) (int, error) {
	n, err := d.plain.Read(p)
	if err != nil {
		if _, said := io.Copy(io.Discard, d.from); said != nil {
			err = said
		}
	}
	return n, err
}

func (d *decompressed) Close() error { return errors.Join(d.plain.Close(), d.from.Close()) }

// open opens the blob's bytes, from wherever they are.
func (b *build) open(ctx context.Context, bl *blob) (io.ReadCloser, error) {
	if bl.as == nil {
		return bl.image.Blob(ctx, bl.base.Descriptor)
	}
	f, err := b.Store.OpenBlob(ctx, bl.desc.Digest)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	// It is damaged, or somebody removed it by hand.
	made, err := b.makeBlob(ctx, bl, io.Discard)
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	if made.Blob.Digest != bl.desc.Digest {
		return nil, fmt.Errorf("layer: the blob %s was lost and is now %s: build again", bl.desc.Digest, made.Blob.Digest)
	}
	return b.Store.OpenBlob(ctx, made.Blob.Digest)
}
