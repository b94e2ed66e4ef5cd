// Package layertar turns tar archives into directories and directories into tar archives:
// the archives that a build adds, and the layers of images, which it unpacks into overlay
// format, each by itself at first, and writes as the changes against the layers below. It
// knows tar and files, and of no store.
//
// Layers follow the OCI image specification 1.1 (layer.md). It fetches nothing and checks
// no digest.
package layertar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/relpath"
)

// Extract unpacks a tar, plain or compressed by gzip, bzip2, xz or zstd, into the
// directory dir of the tree root. Links in dir are followed within root, and made
// where they lead to nothing. From there on dir is the root of the file system, as in
// BuildKit: a link where an entry's parent directory is looked up is followed within
// dir, a ".." in a name or a link ends there, and a link that leads to nothing is an
// error. Missing directories are made
// with mode 0755. An entry replaces what is there, with all below it, unless both
// are directories. A hard link gives the file the owner, mode, time and attributes of
// its own entry. Whiteouts are ordinary files. After an error some of the entries are
// there.
func Extract(ctx context.Context, root, dir string, r io.Reader, o Options) error {
	x, err := newExtractor(root, o, nil)
	if err != nil {
		return err
	}
	defer x.tree.close()
	name, err := relpath.Clean(dir)
	if err != nil {
		return err
	}
	d, err := x.tree.resolve(name, true)
	if err != nil {
		return err
	}
	// What was made on the way is finished while names count from above it.
	if err := x.finish(); err != nil {
		return err
	}
	clear(x.dirs)
	if err := x.tree.enter(d); err != nil {
		return err
	}
	content, err := bounded.Decompress(r)
	if err != nil {
		return fmt.Errorf("decompress: %w", err)
	}
	defer content.Close()
	counted := x.budget.Reader(content)
	if err := x.run(ctx, counted); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, counted); err != nil {
		return fmt.Errorf("read to the end: %w", err)
	}
	return x.finish()
}

// Time returns the latest modification time of a regular file in a tar,
// plain or compressed; zero if r is no archive, or one that has none.
func Time(r io.Reader) time.Time {
	var latest time.Time
	content, err := bounded.Decompress(r)
	if err != nil {
		return latest
	}
	defer content.Close()
	for archive := tar.NewReader(content); ; {
		h, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF):
			return latest
		case err != nil:
			return time.Time{}
		case h.FileInfo().Mode().IsRegular() && h.ModTime.After(latest):
			latest = h.ModTime
		}
	}
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
