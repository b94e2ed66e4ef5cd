package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/bobbuild/bob/executor/recipe"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// recordKind are records of the blobs made of snapshots: what is [Packed] of each.
const recordKind = "layer-2"

// A Packer makes blobs of layers in the store, which remembers them. It may be used by
// several goroutines.
type Packer struct {
	store       *snapshot.Store
	epoch       *time.Time // bounds the times in layers; nil for no bound
	maxUnpacked int64      // in bytes, of a layer that is compressed anew; 0 for no limit
	slots       *semaphore.Weighted
	// begin starts an upload of a blob beside its making.
	begin func(ctx context.Context, bl *Blob) *stream
}

// Pack describes bl, and makes it in the store unless it exists. A blob of a base stays
// where it is.
func (p *Packer) Pack(ctx context.Context, bl *Blob) (Packed, error) {
	if bl.as == nil {
		return Packed{bl.base.Descriptor, bl.base.DiffID}, nil
	}
	return bl.made.Get(ctx, func(ctx context.Context) (Packed, error) {
		made, err := p.pack(ctx, bl)
		return made, bl.placed(err)
	})
}

// PackStream makes the blob in format f of content, the tar of a layer that isn't the
// result of a step.
func (p *Packer) PackStream(ctx context.Context, content io.Reader, f *Format) (*Layer, error) {
	l := &Layer{}
	_, err := l.In(f).made.Get(ctx, func(ctx context.Context) (Packed, error) { return p.write(ctx, &f.Compression, content, io.Discard) })
	return l, err
}

// Remember records in the store that made is the blob of the layer l for the snapshot
// id. The store already has the blob.
func (p *Packer) Remember(id string, l *Layer, made Packed) error {
	return p.remember(p.stepKey(id, l.cached), made)
}

func (p *Packer) remember(key digest.Digest, made Packed) error {
	data, err := json.Marshal(made)
	if err != nil {
		return err
	}
	return p.store.PutRecord(recordKind, key, data)
}

// key names the blob bl. The bytes of a blob made of a snapshot depend on the snapshot,
// which never changes, on the packing and on the epoch.
func (p *Packer) key(bl *Blob) digest.Digest {
	if bl.image != nil {
		return recipe.Key("base layer", bl.base.DiffID.String(), bl.as.String(), snapshot.Packing)
	}
	return p.stepKey(bl.of.ID(), bl.as.String())
}

// stepKey names the blob, compressed as as, of the snapshot id.
func (p *Packer) stepKey(id, as string) digest.Digest {
	epoch := ""
	if p.epoch != nil {
		epoch = p.epoch.UTC().Format(time.RFC3339Nano)
	}
	return recipe.Key("layer", id, epoch, as, snapshot.Packing)
}

// pack makes the blob bl, unless the store has it.
func (p *Packer) pack(ctx context.Context, bl *Blob) (Packed, error) {
	key := p.key(bl)
	if made, ok, err := p.known(key); ok || err != nil {
		return made, err
	}
	if err := p.slots.Acquire(ctx, 1); err != nil {
		return Packed{}, context.Cause(ctx)
	}
	defer p.slots.Release(1)

	made, err := p.compress(ctx, bl)
	if err != nil {
		return made, fmt.Errorf("layer: %w", err)
	}
	return made, p.remember(key, made)
}

// known returns what is known of the blob under key, if the store still holds it.
func (p *Packer) known(key digest.Digest) (made Packed, ok bool, err error) {
	data, err := p.store.Record(recordKind, key)
	if err != nil || json.Unmarshal(data, &made) != nil || made.Blob.Digest == "" {
		return Packed{}, false, nil //nolint:nilerr // treat a damaged record as a missing one
	}
	ok, err = p.store.HasBlob(made.Blob.Digest, made.Blob.Size)
	return made, ok, err
}

// compress makes the blob in the store and, at the same time, at the first target. An
// upload that breaks is repeated from the store. A damaged layer of a base is fetched
// again.
func (p *Packer) compress(ctx context.Context, bl *Blob) (Packed, error) {
	for {
		made, err := p.compressOnce(ctx, bl)
		if e, ok := errors.AsType[*registry.Error](err); !ok || !e.Again() {
			return made, err
		}
	}
}

func (p *Packer) compressOnce(ctx context.Context, bl *Blob) (Packed, error) {
	up := p.begin(ctx, bl)
	defer up.close()
	made, err := p.make(ctx, bl, up)
	if err == nil {
		up.commit(made.Blob.Digest)
	}
	return made, err
}

// make takes the layer's tar through the hash and the compressor into the store and to w.
func (p *Packer) make(ctx context.Context, bl *Blob, w io.Writer) (made Packed, err error) {
	content, err := p.content(ctx, bl.Layer)
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	made, err = p.write(ctx, bl.as, content, w)
	if want := bl.base.DiffID; err == nil && bl.image != nil && made.DiffID != want {
		return made, fmt.Errorf("%s: %w", bl.base.Digest, &snapshot.DiffIDError{Want: want, Got: made.DiffID})
	}
	return made, err
}

// copySize is how many bytes of a layer are handled at once. More isn't faster, and takes
// memory from the compressor where there is little.
const copySize = 256 << 10

// write compresses content, a layer's tar, into the store and to w.
func (p *Packer) write(ctx context.Context, as *snapshot.Compression, content io.Reader, w io.Writer) (made Packed, err error) {
	out, err := p.store.CreateBlob()
	if err != nil {
		return made, err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	zw, err := p.store.NewCompressor(ctx, *as, io.MultiWriter(out, w))
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
	if err := zw.Remember(d); err != nil {
		return made, err
	}
	desc := ocispec.Descriptor{MediaType: LayerMediaType(as.Method), Digest: d, Size: size}
	return Packed{Blob: desc, DiffID: sum.Digest()}, nil
}

// content opens the uncompressed tar of l.
func (p *Packer) content(ctx context.Context, l *Layer) (io.ReadCloser, error) {
	switch {
	case l.of != nil:
		return l.of.Diff(ctx, p.epoch)
	case l.image == nil:
		return nil, errors.New("its blob was lost: build again")
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
	}{bounded.NewBudget(p.maxUnpacked).Reader(d), d}, nil
}

// decompressed is the content of a compressed stream, which is closed with it. The
// stream is read to its end, where its digest is verified. If the digest is wrong, that
// error takes precedence over others.
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

// Open opens the bytes of bl, from wherever they are. The caller closes them.
func (p *Packer) Open(ctx context.Context, bl *Blob) (io.ReadCloser, error) {
	made, err := p.Pack(ctx, bl)
	if err != nil {
		return nil, err
	}
	if bl.as == nil {
		return bl.image.Blob(ctx, bl.base.Descriptor)
	}
	f, err := p.store.OpenBlob(ctx, made.Blob.Digest)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	// It is damaged, or somebody removed it by hand.
	again, err := p.make(ctx, bl, io.Discard)
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	if again.Blob.Digest != made.Blob.Digest {
		return nil, fmt.Errorf("layer: the blob %s was lost and is now %s: build again", made.Blob.Digest, again.Blob.Digest)
	}
	return p.store.OpenBlob(ctx, again.Blob.Digest)
}
