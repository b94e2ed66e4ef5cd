package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/snapshot/bounded"
)

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
	if !bounded.IsCompressed(header) {
		return len(header) >= blockSize && isTarHeader(header[:blockSize])
	}
	r, err := bounded.Decompress(bytes.NewReader(header))
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
