package main

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// block is what bob compresses at a time.
const block = 1 << 20

// pack writes a directory as a tar, compressed as bob does by default, on all processors.
func pack(w io.Writer, dir string) (layer, error) {
	whole, plain := sha256.New(), sha256.New()
	size := &counter{}
	zw, err := pgzip.NewWriterLevel(io.MultiWriter(w, whole, size), pgzip.DefaultCompression)
	if err != nil {
		return layer{}, err
	}
	if err := zw.SetConcurrency(block, runtime.NumCPU()+1); err != nil {
		return layer{}, err
	}
	archive := tar.NewWriter(io.MultiWriter(zw, plain))
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir || entry.Type()&fs.ModeDevice != 0 {
			return err
		}
		return add(archive, dir, path, entry)
	})
	if err := errors.Join(err, archive.Close(), zw.Close()); err != nil {
		return layer{}, err
	}
	return layer{
		Descriptor: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip, Size: size.n, Digest: digest.NewDigest(digest.SHA256, whole),
		},
		diffID: digest.NewDigest(digest.SHA256, plain),
	}, nil
}

func add(archive *tar.Writer, dir, path string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: path[len(dir)+1:], Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(), Size: info.Size(), Typeflag: tar.TypeReg}
	if info.IsDir() {
		header.Name, header.Size, header.Typeflag = header.Name+"/", 0, tar.TypeDir
	}
	if err := archive.WriteHeader(header); err != nil || info.IsDir() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(archive, f)
	return errors.Join(err, f.Close())
}

// A counter counts the bytes that are written to it.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}
