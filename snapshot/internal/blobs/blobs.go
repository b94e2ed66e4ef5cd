// Package blobs keeps files by the digests of their content.
package blobs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/pruning"
	"github.com/bobbuild/bob/snapshot/internal/trash"
	"github.com/bobbuild/bob/snapshot/internal/usage"
	"github.com/opencontainers/go-digest"
)

// Blobs are the blobs of a store, which all ID mappings share. Their methods may be called
// concurrently, also in several processes.
type Blobs struct {
	dir   string // with a directory for each digest algorithm
	usage *usage.Usage
	bin   *trash.Bin
	whole sync.Map // digests of blobs that were read or written in this process
}

// Of returns the blobs of the store in the directory dir, which this process uses.
func Of(dir string, u *usage.Usage, bin *trash.Bin) *Blobs {
	return &Blobs{dir: filepath.Join(dir, "blobs"), usage: u, bin: bin}
}

// List calls add for each blob.
func (b *Blobs) List(_ context.Context, _ bool, add func(pruning.Entry)) error {
	dir := filepath.Join(b.dir, digest.SHA256.String())
	return pruning.EachFile(dir, func(e fs.DirEntry) error {
		id := digest.NewDigestFromEncoded(digest.SHA256, e.Name()).String()
		return pruning.AddFile(add, pruning.Item{Kind: pruning.Blob, ID: id}, filepath.Join(dir, e.Name()))
	})
}

// Remove removes the blob e unless it has been used since it was listed.
func (b *Blobs) Remove(e pruning.Entry) (gone bool, err error) { return e.Throw(b.usage, b.bin) }

// A Writer takes the bytes of a new blob. It is for one goroutine.
type Writer struct {
	blobs *Blobs
	file  *os.File // nil after Commit or Close
	hash  hash.Hash
	size  int64
}

// Create begins a blob. The caller ends it by Commit or Close.
func (b *Blobs) Create() (*Writer, error) {
	f, err := os.CreateTemp(b.usage.TempDir(), "blob-*")
	if err != nil {
		return nil, fmt.Errorf("create blob: %w", err)
	}
	return &Writer{blobs: b, file: f, hash: sha256.New()}, nil
}

// Write appends p.
func (w *Writer) Write(p []byte) (int, error) {
	if w.file == nil {
		return 0, fmt.Errorf("write blob: %w", os.ErrClosed)
	}
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write blob: %w", err)
	}
	return n, nil
}

// Commit makes the blob visible under its digest and returns that and its size in
// bytes. A blob of the same content may be there already. After an error nothing
// is left.
func (w *Writer) Commit() (digest.Digest, int64, error) {
	if w.file == nil {
		return "", 0, fmt.Errorf("commit blob: %w", os.ErrClosed)
	}
	f := w.file
	w.file = nil
	d := digest.NewDigest(digest.SHA256, w.hash)
	err := f.Close()
	if err == nil {
		err = w.blobs.usage.Touch(f.Name())
	}
	if err == nil {
		err = os.Rename(f.Name(), w.blobs.path(d))
	}
	if err != nil {
		return "", 0, fmt.Errorf("commit blob %s: %w", d, errors.Join(err, os.Remove(f.Name())))
	}
	w.blobs.whole.Store(d, true)
	return d, w.size, nil
}

// Close discards the blob unless it was committed; then it does nothing.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	f := w.file
	w.file = nil
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return fmt.Errorf("discard blob: %w", err)
	}
	return nil
}

// Mark marks the blob d as used. The error of one that isn't there is fs.ErrNotExist.
func (b *Blobs) Mark(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return err
	}
	return b.usage.Mark(b.path(d))
}

// Has reports whether the blob d, of size bytes, is there. It isn't read: only Open
// finds out whether it has the bytes of d.
func (b *Blobs) Has(d digest.Digest, size int64) (bool, error) {
	err := b.Mark(d)
	var fi fs.FileInfo
	if err == nil {
		fi, err = os.Lstat(b.path(d))
	}
	switch {
	case err == nil:
		return fi.Size() == size, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, fmt.Errorf("look for blob %q: %w", d, err)
}

// Open opens the blob d for reading; the caller closes it. The error of a blob that isn't
// there is fs.ErrNotExist. One that this process hasn't written is read first, as far as
// ctx allows: if it isn't what it was, it is removed.
func (b *Blobs) Open(ctx context.Context, d digest.Digest) (*os.File, error) {
	f, err := b.open(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("open blob %q: %w", d, err)
	}
	return f, nil
}

func (b *Blobs) open(ctx context.Context, d digest.Digest) (*os.File, error) {
	if err := b.Mark(d); err != nil {
		return nil, err
	}
	f, err := os.Open(b.path(d))
	if err != nil {
		return nil, err
	}
	if _, whole := b.whole.Load(d); whole {
		return f, nil
	}
	sum := d.Verifier()
	if _, err = io.CopyBuffer(sum, bounded.Reader(ctx, f, bounded.NoLimit), make([]byte, 1<<20)); err == nil && !sum.Verified() {
		err = b.drop(d, f)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b.whole.Store(d, true)
	return f, nil
}

// drop removes the blob d, which f shows to be damaged, unless another process
// has put a whole one there.
func (b *Blobs) drop(d digest.Digest, f *os.File) error {
	lock, err := b.usage.Exclude()
	if err != nil {
		return err
	}
	defer lock.Close()
	now, err := os.Lstat(b.path(d))
	if err != nil {
		return err
	}
	then, err := f.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(now, then) {
		err = os.Remove(b.path(d))
	}
	return errors.Join(&fs.PathError{Op: "verify", Path: b.path(d), Err: fs.ErrNotExist}, err)
}

func (b *Blobs) path(d digest.Digest) string {
	return filepath.Join(b.dir, d.Algorithm().String(), d.Encoded())
}
