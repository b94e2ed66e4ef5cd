package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/snapshot"
)

// Open fetches src, a *dockerfile.Download or *dockerfile.Repository, unless it
// is there already, and shows it read-only at the directory that it returns,
// until the function is called that it also returns. A build may use the
// directory as its context.
func (b *Builder) Open(ctx context.Context, src dockerfile.Source) (dir string, closeIt func() error, err error) {
	bd, err := b.aside()
	if err != nil {
		return "", nil, err
	}
	ctx = bd.gather(ctx)
	var f *fetched
	switch src := src.(type) {
	case *dockerfile.Download:
		f, err = bd.download(ctx, src)
	case *dockerfile.Repository:
		f, err = bd.repository(ctx, src)
	default:
		err = fmt.Errorf("a %T can't be opened as a directory", src)
	}
	if err = errors.Join(err, bd.group.Wait()); err != nil {
		return "", nil, err
	}
	ctx = context.WithoutCancel(ctx) // of the group, which has ended
	snap, err := f.rootfs.snapshot(ctx)
	if err != nil {
		return "", nil, err
	}
	v, err := b.Store.View(ctx, snap)
	if err != nil {
		return "", nil, err
	}
	return v.Root(), v.Close, nil
}

// aside returns a build of nothing, for what is fetched before the build itself.
func (b *Builder) aside() (*build, error) {
	quiet := *b
	quiet.Progress = nil // its vertices would have the numbers of the build's
	return newBuild(&quiet, []*dockerfile.Plan{{}}, Options{})
}

// Time returns the time that SOURCE_DATE_EPOCH takes from src: of a
// *dockerfile.Repository that of the commit, of a *dockerfile.Download that of
// Last-Modified or else of the newest file in the archive that it is. It is zero
// where nothing tells.
func (b *Builder) Time(ctx context.Context, src dockerfile.Source) (time.Time, error) {
	switch src := src.(type) {
	case *dockerfile.Repository:
		bd, err := b.aside()
		if err != nil {
			return time.Time{}, err
		}
		return bd.Fetch.CommitTime(ctx, fetch.Repository(*src))
	case *dockerfile.Download:
		return b.downloadTime(ctx, src)
	default:
		return time.Time{}, fmt.Errorf("a %T has no time", src)
	}
}

func (b *Builder) downloadTime(ctx context.Context, src *dockerfile.Download) (t time.Time, err error) {
	dir, closeIt, err := b.Open(ctx, src)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, closeIt()) }()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return t, err
	}
	defer root.Close()
	f, err := root.Open(src.Name)
	if err != nil {
		return t, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return t, err
	}
	if fi.ModTime().Unix() != 0 { // else the server said nothing
		return fi.ModTime(), nil
	}
	return snapshot.ArchiveTime(f), nil
}
