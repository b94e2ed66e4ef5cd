package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/klauspost/compress/gzip"
)

const (
	// maxMembers bounds the files of an archive: an image has a few hundred.
	maxMembers = 100_000
	// maxLinks bounds links to links in an archive.
	maxLinks = 8
)

// members are the files of an archive by name. They are read from the archive itself,
// several at once if need be.
type members map[string]*io.SectionReader

// open opens a member; closing it does nothing.
func (m members) open(name string) (io.ReadCloser, error) {
	s := m[name]
	if s == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(io.NewSectionReader(s, 0, s.Size())), nil
}

// read returns the whole of a member that may have at most limit bytes.
func (m members) read(name string, limit int64) ([]byte, error) {
	f, err := m.open(name)
	if err != nil {
		return nil, err
	}
	body, err := oci.ReadBounded(f, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return body, nil
}

// put adds a member that is in memory.
func (m members) put(name string, body []byte) {
	m[name] = io.NewSectionReader(bytes.NewReader(body), 0, int64(len(body)))
}

// openTar opens the tar called name. If it is compressed by gzip, openTar decompresses
// it to a file without a name. It unpacks nothing. The caller closes the file after the
// last use of the members.
func openTar(ctx context.Context, name string, o Options) (members, *os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	if isGzip(f) {
		packed := f
		f, err = spool(o.TempDir, func(w io.Writer) error { return gunzip(ctx, w, packed, o.MaxUnpacked) })
		_ = packed.Close() // only read
		if err != nil {
			return nil, nil, fmt.Errorf("decompress %s: %w", name, err)
		}
	}
	m, err := listTar(ctx, f, bounded.NewBudget(o.MaxUnpacked))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read %s: %w", name, err), f.Close())
	}
	return m, f, nil
}

// isGzip says whether r begins as RFC 1952 says.
func isGzip(r io.ReaderAt) bool {
	var magic [2]byte
	_, err := r.ReadAt(magic[:], 0)
	return err == nil && magic == [2]byte{0x1f, 0x8b}
}

// gunzip decompresses r to at most limit bytes; 0 is no limit.
func gunzip(ctx context.Context, w io.Writer, r io.Reader, limit int64) error {
	zr, err := gzip.NewReader(bounded.Reader(ctx, r, bounded.NoLimit))
	if err != nil {
		return err
	}
	_, err = io.Copy(w, bounded.NewBudget(limit).Reader(zr))
	return err
}

// spool returns a file without a name in the directory dir ("": the system's)
// that holds what write wrote. The caller closes it.
func spool(dir string, write func(io.Writer) error) (*os.File, error) {
	f, err := os.CreateTemp(dir, "bob-")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(f.Name()), write(f)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// listTar notes where the files of a tar are. Their names count against the budget.
func listTar(ctx context.Context, f *os.File, budget *bounded.Budget) (members, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	list, links := make(members), make(map[string]string)
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("it is no tar, or a damaged one: %w", err)
		}
		if err := budget.Entry(0, len(h.Name)+len(h.Linkname)); err != nil {
			return nil, err
		}
		name := path.Clean(h.Name)
		if !fs.ValidPath(name) {
			return nil, fmt.Errorf("%w: the entry %q lies outside of the archive", oci.ErrCorrupt, h.Name)
		}
		if len(list)+len(links) == maxMembers {
			return nil, fmt.Errorf("%w: more than %d entries", oci.ErrCorrupt, maxMembers)
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeGNUSparse:
			// Package tar doesn't read ahead, and it skips by seeking.
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			if isSparse(h) {
				return nil, fmt.Errorf("the entry %q is sparse, which is not supported: make the tar without sparse files", name)
			}
			list[name] = io.NewSectionReader(f, at, h.Size)
		case tar.TypeLink:
			links[name] = path.Clean(h.Linkname)
		case tar.TypeSymlink:
			links[name] = path.Join(path.Dir(name), h.Linkname) //nolint:gosec // only looked up among the entries
		}
	}
	if len(list) == 0 {
		return nil, errors.New("it is no tar, or an empty one")
	}
	for name := range links {
		target := name
		for range maxLinks {
			if next, ok := links[target]; ok {
				target = next
			}
		}
		if s := list[target]; s != nil {
			list[name] = s
		}
	}
	return list, nil
}

func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}
