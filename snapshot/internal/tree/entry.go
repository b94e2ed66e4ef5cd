package tree

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/bobbuild/bob/snapshot/bounded"
	"github.com/bobbuild/bob/snapshot/internal/layertar"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// An Entry is an entry of a layer's tar.
type Entry struct {
	Name, Link string
	Type       byte
	Mode       uint32
	UID, GID   int
	Mtime      unix.Timespec
	Xattrs     map[string]string // that archives hold
	Data       []byte            // of a file that names accounts
}

// maxAccounts is how many bytes of a file that names accounts go into an index.
const maxAccounts = 1 << 20

// maxHeld is how many bytes of such files an index holds. Others are read from the
// layer, which is unpacked for it.
const maxHeld = 16 << 20

// namesAccounts reports whether a file may be one that names are looked up in.
func namesAccounts(hdr *tar.Header) bool {
	base := path.Base(hdr.Name)
	return hdr.Typeflag == tar.TypeReg && hdr.Size <= maxAccounts && (base == "passwd" || base == "group")
}

// ReadEntries returns the entries of the layer whose tar r is. The budget counts them.
func ReadEntries(ctx context.Context, r io.Reader, budget *bounded.Budget) ([]Entry, error) {
	var entries []Entry
	var held int64 // bytes of files
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, fmt.Errorf("read tar header: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := budget.TarEntry(hdr); err != nil {
			return nil, fmt.Errorf("index %q: %w", hdr.Name, err)
		}
		e, err := newEntry(hdr)
		if err == nil && namesAccounts(hdr) && held+hdr.Size <= maxHeld {
			held += hdr.Size
			e.Data, err = io.ReadAll(tr)
		}
		if err != nil {
			return nil, fmt.Errorf("index %q: %w", hdr.Name, err)
		}
		entries = append(entries, e)
	}
}

func newEntry(hdr *tar.Header) (Entry, error) {
	a, err := layertar.HeaderAttrs(hdr)
	if err == nil {
		err = layertar.CheckOwner(a)
	}
	if err != nil {
		return Entry{}, err
	}
	return Entry{
		Name: hdr.Name, Link: hdr.Linkname, Type: hdr.Typeflag,
		Mode: a.Mode, UID: a.UID, GID: a.GID, Mtime: a.Mtime, Xattrs: a.Archived().Xattrs,
	}, nil
}

// Encode returns the entries as bytes, from which [Decode] reads them.
func Encode(entries []Entry) ([]byte, error) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(gob.NewEncoder(z).Encode(entries), z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Decode returns the entries that were given to [Encode].
func Decode(data []byte) ([]Entry, error) {
	z, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var entries []Entry
	err = gob.NewDecoder(z).Decode(&entries)
	return entries, err
}
