package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/bounded"
)

// remoteContext returns what the address of the build context stands for, nil
// if it is none.
func remoteContext(address string) (dockerfile.Source, error) {
	src, err := dockerfile.RemoteContext(address)
	if err != nil {
		return nil, err
	}
	switch src := src.(type) {
	case *dockerfile.Download:
		return src, fetch.CheckURL(src.URL)
	case *dockerfile.Repository:
		return src, nil
	case *dockerfile.Path, *dockerfile.Inline: // have no address
	}
	return nil, nil
}

// fetchDockerfile reads the Dockerfile at a URL.
func fetchDockerfile(ctx context.Context, address string, elsewhere Opener) (name string, text []byte, err error) {
	name = fetch.Redact(address)
	d := &dockerfile.Download{URL: address, Name: "Dockerfile"}
	dir, closeIt, err := elsewhere(ctx, d)
	if err != nil {
		return "", nil, fmt.Errorf("-f %s: %w", name, err)
	}
	text, err = readIn(ctx, dir, d.Name, dockerfile.MaxSize)
	return name, text, errors.Join(err, closeIt())
}

// FetchTo returns an [Opener] that fetches to directories below scratch, which is
// removed later on. It needs neither a store nor mounts.
func FetchTo(scratch string, client *fetch.Client) Opener {
	return func(ctx context.Context, src dockerfile.Source) (dir string, closeIt func() error, err error) {
		if dir, err = os.MkdirTemp(scratch, "fetched-"); err != nil {
			return "", nil, err
		}
		switch src := src.(type) {
		case *dockerfile.Download:
			file := fetch.File{URL: src.URL, Name: src.Name}
			_, err = client.Download(ctx, file, nil, func() (string, error) { return dir, nil }, nil)
		case *dockerfile.Repository:
			r := fetch.Repository(*src)
			var at *fetch.Commit
			if at, err = client.Resolve(ctx, r); err == nil {
				err = client.Checkout(ctx, r, at, dir)
			}
		case *dockerfile.Path, *dockerfile.Inline:
			err = fmt.Errorf("a %T has no address", src)
		}
		return dir, func() error { return nil }, err
	}
}

// arrived returns the directory with the files of a context that was fetched to
// dir: an archive is unpacked to scratch, any other single file is a Dockerfile.
func (in *Input) arrived(ctx context.Context, dir, scratch string) (string, error) {
	if _, ok := in.Remote.(*dockerfile.Download); !ok {
		return dir, nil
	}
	f, err := os.Open(filepath.Join(dir, dockerfile.ContextFileName))
	if err != nil {
		return "", err
	}
	defer f.Close()
	header := make([]byte, filecopy.HeaderSize)
	n, err := io.ReadFull(f, header)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	if !snapshot.IsArchive(header[:n]) {
		in.dockerfile, in.name = dockerfile.ContextFileName, fetch.Redact(in.context)
		return dir, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return "", err
	}
	return scratch, filecopy.UnpackContext(ctx, f, scratch, bounded.NewBudget(in.MaxUnpacked))
}
