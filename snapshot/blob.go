package snapshot

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

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func (s *Store) blobDir() string { return filepath.Join(s.dir, "blobs", digest.SHA256.String()) }

// A BlobWriter takes the bytes of a new blob. It is for one goroutine.
type BlobWriter struct {
	store *Store
	file  *os.File // nil after Commit or Close
	hash  hash.Hash
	size  int64
}

// CreateBlob begins a blob. The caller ends it by Commit or Close.
func (s *Store) CreateBlob() (*BlobWriter, error) {
	f, err := os.CreateTemp(s.tmp.Path, "blob-*")
	if err != nil {
		return nil, fmt.Errorf("create blob: %w", err)
	}
	return &BlobWriter{store: s, file: f, hash: sha256.New()}, nil
}

// Write appends p.
func (w *BlobWriter) Write(p []byte) (int, error) {
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
func (w *BlobWriter) Commit() (digest.Digest, int64, error) {
	if w.file == nil {
		return "", 0, fmt.Errorf("commit blob: %w", os.ErrClosed)
	}
	f := w.file
	w.file = nil
	d := digest.NewDigest(digest.SHA256, w.hash)
	err := f.Close()
	if err == nil {
		err = w.store.touch(f.Name())
	}
	if err == nil {
		err = os.Rename(f.Name(), w.store.blobPath(d))
	}
	if err != nil {
		return "", 0, fmt.Errorf("commit blob %s: %w", d, errors.Join(err, os.Remove(f.Name())))
	}
	w.store.whole.Store(d, true)
	return d, w.size, nil
}

// Close discards the blob unless it was committed; then it does nothing.
func (w *BlobWriter) Close() error {
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

// HasBlob reports whether the blob d, of size bytes, is there. It isn't read: that
// it has the bytes of d is known when OpenBlob opens it.
func (s *Store) HasBlob(d digest.Digest, size int64) (bool, error) {
	err := d.Validate()
	if err == nil {
		err = s.use(s.blobPath(d))
	}
	var fi fs.FileInfo
	if err == nil {
		fi, err = os.Lstat(s.blobPath(d))
	}
	switch {
	case err == nil:
		return fi.Size() == size, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, fmt.Errorf("look for blob %q: %w", d, err)
}

// OpenBlob opens the blob d for reading; the caller closes it. The error of a
// blob that isn't there is fs.ErrNotExist. One that this process hasn't written is
// read first, as far as ctx allows: if it isn't what it was, it is removed.
func (s *Store) OpenBlob(ctx context.Context, d digest.Digest) (*os.File, error) {
	f, err := s.openBlob(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("open blob %q: %w", d, err)
	}
	return f, nil
}

func (s *Store) openBlob(ctx context.Context, d digest.Digest) (*os.File, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	if err := s.use(s.blobPath(d)); err != nil {
		return nil, err
	}
	f, err := os.Open(s.blobPath(d))
	if err != nil {
		return nil, err
	}
	if _, whole := s.whole.Load(d); whole {
		return f, nil
	}
	sum := d.Verifier()
	if _, err = io.CopyBuffer(sum, &cancellable{ctx, f}, make([]byte, 1<<20)); err == nil && !sum.Verified() {
		err = s.dropBlob(d, f)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.whole.Store(d, true)
	return f, nil
}

// dropBlob removes the blob d, which f shows to be damaged, unless another process
// has put a whole one there.
func (s *Store) dropBlob(d digest.Digest, f *os.File) error {
	lock, err := s.lockUse(unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	now, err := os.Lstat(s.blobPath(d))
	if err != nil {
		return err
	}
	then, err := f.Stat()
	if err != nil {
		return err
	}
	if os.SameFile(now, then) {
		err = os.Remove(s.blobPath(d))
	}
	return errors.Join(&fs.PathError{Op: "verify", Path: s.blobPath(d), Err: fs.ErrNotExist}, err)
}

// cancellable reads from r until ctx ends.
type cancellable struct {
	ctx context.Context //nolint:containedctx // of one copy
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded())
}
