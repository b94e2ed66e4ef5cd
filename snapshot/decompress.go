package snapshot

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
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

// maxWindow is the most memory that the window of a zstd stream may ask for. It is
// what the zstd tool takes without being told otherwise.
const maxWindow = 128 << 20

// Decompress returns the uncompressed bytes of r, whose compression (gzip, zstd,
// bzip2, xz or none) its first bytes tell. The caller closes them; that doesn't
// close r.
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
		return d.IOReadCloser(), nil
	case bzipped:
		return io.NopCloser(bzip2.NewReader(br)), nil
	case xzipped:
		x, err := xz.NewReader(br)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case plain:
	}
	return io.NopCloser(br), nil
}

// checkMediaType refuses layers that the first bytes of the stream can't make
// readable. What the type says of compression isn't relied on: there are images
// where it is wrong, and the DiffID decides in the end.
func checkMediaType(mediaType string) error {
	if strings.HasSuffix(mediaType, "+encrypted") {
		return fmt.Errorf("layer of type %s is encrypted, which is not supported", mediaType)
	}
	return nil
}

// blockSize is the size of a tar header.
const blockSize = 512

// IsArchive reports whether a file that begins with header is a tar, plain or
// compressed by gzip, bzip2, xz or zstd. For a plain one the first 512 bytes tell,
// for a compressed one the first 64 KiB mostly do. If header is too short to
// decompress a tar header from it, the answer is yes.
func IsArchive(header []byte) bool {
	if detect(header) == plain {
		return len(header) >= blockSize && isTarHeader(header[:blockSize])
	}
	r, err := Decompress(bytes.NewReader(header))
	if err != nil {
		return errors.Is(err, io.ErrUnexpectedEOF)
	}
	defer r.Close()
	var block [blockSize]byte
	for n := 0; n < blockSize; {
		m, err := r.Read(block[n:])
		n += m
		if err != nil && n < blockSize {
			return errors.Is(err, io.ErrUnexpectedEOF) // cut, not ended
		}
	}
	return isTarHeader(block[:])
}

// isTarHeader reports whether the checksum of b is that of a header.
func isTarHeader(b []byte) bool {
	const first, last = 148, 156 // the checksum field, counted as spaces
	var sum int64
	for i, c := range b {
		if i >= first && i < last {
			c = ' '
		}
		sum += int64(c)
	}
	want, err := strconv.ParseInt(strings.Trim(string(b[first:last]), " \x00"), 8, 64)
	return err == nil && want == sum
}
