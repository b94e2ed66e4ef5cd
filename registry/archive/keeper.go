package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// files are the files of a layout, by name.
type files interface {
	open(name string) (io.ReadCloser, error)
}

// directory is a layout that is a directory. No link is followed out of it.
type directory string

func (d directory) open(name string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read
	return root.Open(name)
}

// keeper is a layout that is read. It is an [oci.Keeper].
type keeper struct {
	files files
	name  string // as the user wrote it
}

// Manifest implements oci.Keeper.
func (k *keeper) Manifest(ctx context.Context, want ocispec.Descriptor) (*oci.Document, error) {
	body, err := k.read(ctx, want, oci.MaxManifest)
	var doc *oci.Document
	if err == nil {
		doc, err = oci.ReadDocument(body, want.MediaType, want)
	}
	if err != nil {
		return nil, k.Fail(oci.OpPullManifest, want.Digest.String(), err)
	}
	return doc, nil
}

// Config implements oci.Keeper.
func (k *keeper) Config(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	body, err := k.read(ctx, d, oci.MaxConfig)
	if err == nil {
		err = oci.Verify(body, d)
	}
	if err == nil && !json.Valid(body) {
		err = errors.New("not JSON")
	}
	if err != nil {
		return nil, k.Fail(oci.OpPullConfig, d.Digest.String(), err)
	}
	return body, nil
}

// Blob implements oci.Keeper.
func (k *keeper) Blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	f, err := k.open(ctx, d.Digest)
	if err != nil {
		return nil, k.Fail(oci.OpPullBlob, d.Digest.String(), err)
	}
	return &blobReader{file: f, ctx: ctx, keeper: k, want: d, verifier: d.Digest.Verifier()}, nil
}

// Fail implements oci.Keeper.
func (k *keeper) Fail(op, digest string, cause error) error {
	return &oci.Error{Op: op, Subject: k.name, Digest: digest, Err: cause}
}

// read returns the whole of a blob that may have at most limit bytes.
func (k *keeper) read(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, oci.TooLarge(d.Size, limit)
	}
	f, err := k.open(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	return oci.ReadBounded(f, limit)
}

// open opens a blob.
func (k *keeper) open(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%w: digest %q: %w", oci.ErrCorrupt, words.Line(d.String()), err)
	}
	f, err := k.files.open(blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no blob %s", oci.ErrNotFound, d)
	}
	return f, err
}

// blobReader reads a blob and verifies it.
type blobReader struct {
	file     io.ReadCloser   // not embedded: its WriteTo would bypass the verifier
	ctx      context.Context //nolint:containedctx // of one blob, which the value stands for
	keeper   *keeper
	want     ocispec.Descriptor
	verifier digest.Verifier
	n        int64
}

// Read implements io.Reader.
func (r *blobReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	n, err := r.file.Read(p)
	_, _ = r.verifier.Write(p[:n]) // a hash never fails
	r.n += int64(n)
	switch {
	case r.n > r.want.Size, errors.Is(err, io.EOF) && r.n < r.want.Size:
		return 0, r.corrupt(fmt.Sprintf("not %d bytes", r.want.Size))
	case r.n == r.want.Size && !r.verifier.Verified():
		// Withhold the last bytes, so that nobody takes the blob for complete.
		return 0, r.corrupt("its bytes have another digest")
	}
	return n, err
}

func (r *blobReader) corrupt(how string) error {
	return r.keeper.Fail(oci.OpPullBlob, r.want.Digest.String(), fmt.Errorf("%w: %s", oci.ErrCorrupt, how))
}

// Close implements io.Closer.
func (r *blobReader) Close() error { return r.file.Close() }
