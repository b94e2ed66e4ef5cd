package input

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bobbuild/bob/cmd/bob/internal/cli"
)

// Outside returns a [cli.UsageError] if the context is the directory called cache or lies
// in it.
func (in *Input) Outside(cache string) error {
	if in.inside() || in.context == "" {
		return nil
	}
	if err := Outside(in.context, cache); err != nil {
		return cli.Errorf("context %s: %v", in.context, err)
	}
	return nil
}

// Outside returns an error if the directory dir is the directory called cache or lies in
// it, also by way of links. A cache directory that doesn't exist holds nothing.
func Outside(dir, cache string) error {
	own, err := os.Stat(cache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	for where := "is"; ; where = "lies in" {
		if fi, err := os.Stat(dir); err == nil && os.SameFile(fi, own) {
			return fmt.Errorf("it %s bob's own cache directory %s: give another --cache-dir", where, cache)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}
