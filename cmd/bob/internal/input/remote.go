package input

import (
	"context"
	"fmt"
	"os"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/fetch"
)

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

// An Opener fetches what lies at an address and returns a directory with it, which
// exists until the returned function is called.
type Opener func(context.Context, dockerfile.Source) (dir string, closeIt func() error, err error)
