package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Layout is an OCI image layout to be written.
type Layout struct {
	Entries []ocispec.Descriptor // of index.json
	Blobs   []Blob               // all that the entries name, directly or not
}

// A Blob is a blob of a [Layout]. The writer verifies its bytes and closes what Open
// returns.
type Blob struct {
	ocispec.Descriptor

	Open func(context.Context) (io.ReadCloser, error)
}

// Bytes returns an opener of bytes in memory.
func Bytes(body []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

// WriteFile writes a tar of the layout to name. The file appears complete or not at
// all.
func (l *Layout) WriteFile(ctx context.Context, name string) error {
	return writeFile(name, func(w io.Writer) error { return l.writeTar(ctx, w) })
}

// file is a file of a layout beside its blobs.
type file struct {
	name string
	body []byte
}

func encodeIndex(entries []ocispec.Descriptor) ([]byte, error) {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: entries,
	}
	body, err := json.Marshal(index)
	if err != nil {
		return nil, fmt.Errorf("write index.json: %w", err)
	}
	return body, nil
}

func layoutMarker() []byte {
	return []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)
}

// blobPath is where a layout keeps a blob; d has been validated.
func blobPath(d digest.Digest) string {
	return path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// writeTar writes the files before the blobs, so that a streaming reader knows which
// blobs follow.
func (l *Layout) writeTar(ctx context.Context, w io.Writer, more ...file) error {
	index, err := encodeIndex(l.Entries)
	if err != nil {
		return err
	}
	files := append([]file{{ocispec.ImageIndexFile, index}, {ocispec.ImageLayoutFile, layoutMarker()}}, more...)
	tw := tar.NewWriter(w)
	for _, file := range files {
		if err := writeEntry(tw, file.name, bytes.NewReader(file.body), int64(len(file.body))); err != nil {
			return err
		}
	}
	made := make(map[string]bool)
	for _, blob := range l.Blobs {
		dir := path.Dir(blobPath(blob.Digest))
		for _, one := range []string{path.Dir(dir), dir} {
			if made[one] {
				continue
			}
			made[one] = true
			h := &tar.Header{Typeflag: tar.TypeDir, Name: one + "/", Mode: 0o755, ModTime: time.Unix(0, 0)}
			if err := tw.WriteHeader(h); err != nil {
				return fmt.Errorf("write archive: %w", err)
			}
		}
		err := blob.read(ctx, func(r io.Reader) error {
			return writeEntry(tw, blobPath(blob.Digest), r, blob.Size)
		})
		if err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return nil
}

func writeEntry(tw *tar.Writer, name string, r io.Reader, size int64) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write archive: %s: %w", name, err)
	}
	if _, err := io.Copy(tw, r); err != nil {
		return fmt.Errorf("write archive: %s: %w", name, err)
	}
	return nil
}

// read opens the blob for use, which must read all of it, and verifies it.
func (b *Blob) read(ctx context.Context, use func(io.Reader) error) error {
	rc, err := b.Open(ctx)
	if err != nil {
		return fmt.Errorf("write archive: blob %s: %w", b.Digest, err)
	}
	verifier := b.Digest.Verifier()
	// Read one byte more than promised: it shows that there are too many.
	content := io.TeeReader(bounded.Reader(ctx, io.LimitReader(rc, b.Size), bounded.NoLimit), verifier)
	err = use(content)
	if err == nil {
		err = b.ended(rc, verifier)
	}
	return errors.Join(err, rc.Close())
}

// ended checks that rc is at its end and that its bytes have the promised digest.
func (b *Blob) ended(rc io.Reader, verifier digest.Verifier) error {
	n, err := io.CopyN(io.Discard, rc, 1)
	switch {
	case n > 0:
		err = fmt.Errorf("%w: more than %d bytes", oci.ErrCorrupt, b.Size)
	case !errors.Is(err, io.EOF):
	case !verifier.Verified():
		err = fmt.Errorf("%w: fewer than %d bytes, or others", oci.ErrCorrupt, b.Size)
	default:
		return nil
	}
	return fmt.Errorf("write archive: blob %s: %w", b.Digest, err)
}

// writeThenRename makes name appear with all of its content or not at all.
func writeThenRename(root *os.Root, name string, write func(io.Writer) error) error {
	temporary := path.Join(path.Dir(name), ".tmp-"+rand.Text())
	f, err := root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Close())
	if err == nil {
		err = root.Rename(temporary, name)
	}
	if err != nil {
		_ = root.Remove(temporary) // the first error counts
	}
	return err
}

// writeFile makes a file appear with everything that write writes, or not at all.
func writeFile(name string, write func(io.Writer) error) error {
	root, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // only read
	if err := writeThenRename(root, filepath.Base(name), write); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
