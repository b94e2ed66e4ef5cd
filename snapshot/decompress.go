package snapshot

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
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

// IsArchive reports whether a file that begins with header is a tar, plain or
// compressed by gzip, bzip2, xz or zstd: whether its first entry can be read, as in
// BuildKit. If header is too short to decompress that entry's headers from it, the
// answer is yes.
func IsArchive(header []byte) bool {
	content, err := bounded.Decompress(bytes.NewReader(header))
	if err != nil {
		return errors.Is(err, io.ErrUnexpectedEOF)
	}
	defer content.Close()
	r := &cutReader{r: content}
	_, err = tar.NewReader(r).Next()
	return err == nil || errors.Is(err, tar.ErrInsecurePath) || r.cut && bounded.IsCompressed(header)
}

// cutReader notes whether what it reads was cut before its end.
type cutReader struct {
	r   io.Reader
	cut bool
}

func (c *cutReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.cut = c.cut || errors.Is(err, io.ErrUnexpectedEOF)
	return n, err
}
