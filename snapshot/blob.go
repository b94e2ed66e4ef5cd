package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
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
	f, err := os.CreateTemp(s.tmp.path, "blob-*")
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
		err = os.Rename(f.Name(), w.store.blobPath(d))
	}
	if err != nil {
		return "", 0, fmt.Errorf("commit blob %s: %w", d, errors.Join(err, os.Remove(f.Name())))
	}
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

// OpenBlob opens the blob d for reading; the caller closes it. The error of a
// blob that isn't there is fs.ErrNotExist.
func (s *Store) OpenBlob(d digest.Digest) (*os.File, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("open blob %q: %w", d, err)
	}
	err := s.use(s.blobPath(d))
	if err == nil {
		var f *os.File
		if f, err = os.Open(s.blobPath(d)); err == nil {
			return f, nil
		}
	}
	return nil, fmt.Errorf("open blob %s: %w", d, err)
}

func (s *Store) blobPath(d digest.Digest) string {
	return filepath.Join(s.dir, "blobs", d.Algorithm().String(), d.Encoded())
}
