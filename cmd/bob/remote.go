package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/snapshot"
	"github.com/bobbuild/bob/snapshot/bounded"
)

// remoteContext returns what the address of the build context stands for, nil
// if it is none.
func (cfg *buildConfig) remoteContext(ctx context.Context, address string) (dockerfile.Source, error) {
	src, err := dockerfile.RemoteContext(address)
	if err != nil {
		return nil, err
	}
	switch src := src.(type) {
	case *dockerfile.Download:
		return src, fetch.CheckURL(src.URL)
	case *dockerfile.Repository:
		args, err := buildArgs(ctx, cfg.buildArgs.Values)
		if err != nil {
			return nil, err
		}
		if keep, err := strconv.ParseBool(args["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]); err == nil && keep {
			src.KeepGitDir = true
		}
		src.CommitTime = src.CommitTime || args["SOURCE_DATE_EPOCH"] != ""
		return src, nil
	case *dockerfile.Path, *dockerfile.Inline: // have no address
	}
	return nil, nil //nolint:nilnil // documented
}

// fetchDockerfile reads the Dockerfile at a URL.
func fetchDockerfile(ctx context.Context, address string, elsewhere opener) (name string, text []byte, err error) {
	name = fetch.Redact(address)
	d := &dockerfile.Download{URL: address, Name: "Dockerfile"}
	dir, closeIt, err := elsewhere(ctx, d)
	if err != nil {
		return "", nil, fmt.Errorf("-f %s: %w", name, err)
	}
	text, err = readIn(ctx, dir, d.Name, dockerfile.MaxSize)
	return name, text, errors.Join(err, closeIt())
}

// fetchTo returns an opener that fetches to directories below scratch, which is
// removed later on. It needs neither a store nor mounts.
func fetchTo(scratch string, client *fetch.Client) opener {
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
func (in *inputs) arrived(ctx context.Context, dir, scratch string) (string, error) {
	if _, ok := in.remote.(*dockerfile.Download); !ok {
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
	return scratch, filecopy.UnpackContext(ctx, f, scratch, bounded.NewBudget(in.maxUnpacked))
}

// epoch returns the time of what SOURCE_DATE_EPOCH names, zero if that has none,
// and nil if it names nothing. Directories have no time.
func (in *inputs) epoch(ctx context.Context, file *dockerfile.File, o *options, b *executor.Builder) (*time.Time, error) {
	named, err := file.EpochSource(o.plan)
	if named == nil || err != nil {
		return nil, err
	}
	src := named.Source
	if named.Context == "context" {
		src = in.remote
	} else if c, ok := o.build.Contexts[named.Context]; ok && c.Repository != nil {
		src = c.Repository
	} else if ok && c.URL != "" {
		src = &dockerfile.Download{URL: c.URL, Name: dockerfile.ContextFileName}
	}
	if src == nil {
		return &time.Time{}, nil
	}
	t, err := b.Time(ctx, src)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	return &t, nil
}
