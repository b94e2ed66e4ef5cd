package bounded

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/xi2/xz"
)

// compression is how a stream is compressed, told by its first bytes.
type compression int

const (
	plain compression = iota
	gzipped
	zstandard
	bzipped
	xzipped
)

// magicSize is how many bytes detect looks at.
const magicSize = 6

// detect tells the compression by the first bytes of a stream.
func detect(b []byte) compression {
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b}):
		return gzipped
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(b) >= 4 && b[0]&0xf0 == 0x50 && bytes.Equal(b[1:4], []byte{0x2a, 0x4d, 0x18}): // skippable frame
		return zstandard
	case bytes.HasPrefix(b, []byte("BZh")):
		return bzipped
	case bytes.HasPrefix(b, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return xzipped
	}
	return plain
}

// maxWindow is the most memory in bytes that a stream may ask for, by the window of
// zstd (RFC 8878) or the dictionary of xz. It is what the zstd tool takes without being
// told otherwise, and twice what "xz -9" writes.
const maxWindow = 128 << 20

// IsCompressed reports whether a stream that begins with head is compressed in a way
// that [Decompress] knows.
func IsCompressed(head []byte) bool { return detect(head) != plain }

// Decompress returns the uncompressed bytes of r, whose compression (gzip, zstd,
// bzip2, xz or none) its first bytes tell. It takes at most some 128 MiB of memory: a
// stream that asks for more is an error. How many bytes there are nothing bounds but a
// [Budget]. The caller closes what is returned; that doesn't close r.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(magicSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch detect(head) {
	case gzipped:
		return gzip.NewReader(br)
	case zstandard:
		d, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return &zstdReader{explained{d}, d.Close}, nil
	case bzipped:
		return io.NopCloser(bzip2.NewReader(br)), nil
	case xzipped:
		// Of the libraries for xz this is the one that bounds what a stream asks for.
		x, err := xz.NewReader(br, maxWindow)
		if err != nil {
			return nil, explainMemory(err)
		}
		return io.NopCloser(explained{x}), nil
	case plain:
	}
	return io.NopCloser(br), nil
}

// zstdReader is a zstd stream that is ended by close.
type zstdReader struct {
	io.Reader

	close func()
}

func (z *zstdReader) Close() error {
	z.close()
	return nil
}

// explained says what to do about a stream that asks for too much memory.
type explained struct{ r io.Reader }

func (e explained) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	return n, explainMemory(err)
}

func explainMemory(err error) error {
	if errors.Is(err, xz.ErrMemlimit) || errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = fmt.Errorf("unpacking it takes more than %s of memory; compress it with a smaller window or dictionary: %w", size(maxWindow), err)
	}
	return err
}
