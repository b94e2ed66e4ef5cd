package input

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/registry/archive"
	"github.com/distribution/reference"
)

// Named returns what the value of a --build-context stands for: an image
// of a registry, or something else.
func Named(ctx context.Context, value string) (c *executor.Context, image string, err error) {
	scheme, rest, _ := strings.Cut(value, "://")
	switch {
	case scheme == "docker-image":
		if rest != "scratch" {
			_, err = reference.ParseNormalizedNamed(rest)
		}
		return nil, rest, err
	case scheme == "oci-layout":
		layout, err := layoutImage(rest)
		return &executor.Context{Layout: layout}, "", err
	case strings.HasPrefix(value, "target:"):
		return nil, "", errors.New("target: is for buildx bake; name the stage in the Dockerfile, or build it first and use oci-layout://")
	}
	src, err := dockerfile.RemoteContext(value)
	if err != nil {
		return nil, "", err
	}
	switch src := src.(type) {
	case *dockerfile.Repository:
		return &executor.Context{Repository: src}, "", nil
	case *dockerfile.Download:
		return &executor.Context{URL: src.URL}, "", nil
	case *dockerfile.Path, *dockerfile.Inline: // have no address
	}
	c, err = directoryContext(ctx, value)
	return c, "", err
}

// directoryContext opens a directory with its .dockerignore.
func directoryContext(ctx context.Context, dir string) (*executor.Context, error) {
	dir, err := filepath.Abs(strings.TrimPrefix(dir, "local:"))
	if err != nil {
		return nil, err
	}
	switch fi, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("no such directory; want a directory, docker-image://, oci-layout://, or a URL")
	case err != nil:
		return nil, err
	case !fi.IsDir():
		return nil, errors.New("not a directory")
	}
	c := &executor.Context{Dir: dir}
	c.Ignore, err = dirIgnore(ctx, dir)
	return c, err
}

// layoutImage parses PATH[:TAG][@DIGEST].
func layoutImage(spec string) (*archive.LayoutImage, error) {
	l, err := archive.ParseLayoutImage(spec)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(l.Dir, "index.json")); err != nil {
		return nil, fmt.Errorf("no OCI image layout: %w", err)
	}
	l.Dir, err = filepath.Abs(l.Dir)
	return l, err
}
