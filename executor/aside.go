package executor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/bobbuild/bob/dockerfile"
	"github.com/bobbuild/bob/executor/event"
	"github.com/bobbuild/bob/executor/fetch"
	"github.com/bobbuild/bob/executor/source"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Prefetch makes the files of the images that refs name for p present in the store, so
// that builds on them find everything there. If an image can't be fetched, the others
// are fetched all the same; the error joins everything that went wrong.
func (b *Builder) Prefetch(ctx context.Context, refs []string, p ocispec.Platform) (err error) {
	s := b.aside(ctx, b.Progress)
	defer func() { err = errors.Join(err, s.Close()) }()
	return s.Prefetch(ctx, refs, p)
}

// Open fetches src, a *dockerfile.Download or *dockerfile.Repository, unless the store
// has it, and mounts it read-only. It returns the directory, which a build may use as
// its context, and a function that unmounts it.
func (b *Builder) Open(ctx context.Context, src dockerfile.Source) (dir string, closeIt func() error, err error) {
	s := b.aside(ctx, nil)
	f, err := fetchSource(ctx, s, src)
	if err != nil {
		return "", nil, errors.Join(err, s.Close())
	}
	tree, err := s.View(ctx, f.RootFS)
	if err != nil {
		return "", nil, errors.Join(err, s.Close())
	}
	return tree.Root, s.Close, nil
}

// Time returns the time that SOURCE_DATE_EPOCH takes from src: of a
// *dockerfile.Repository the time of the commit, of a *dockerfile.Download
// Last-Modified or else the time of the newest file in the archive that it is. It is
// zero if src has no such time.
func (b *Builder) Time(ctx context.Context, src dockerfile.Source) (t time.Time, err error) {
	s := b.aside(ctx, nil)
	defer func() { err = errors.Join(err, s.Close()) }()
	switch src := src.(type) {
	case *dockerfile.Repository:
		return s.Fetch.CommitTime(ctx, fetch.Repository(*src))
	case *dockerfile.Download:
		return s.Time(ctx, fileOf(src))
	default:
		return time.Time{}, fmt.Errorf("a %T has no time", src)
	}
}

// aside returns the sources for reading outside of a build. They report no events if a
// build's events follow, since the vertices of both would have the same numbers.
func (b *Builder) aside(ctx context.Context, watch func(event.Event)) *source.Sources {
	b = b.complete()
	progress := event.NewReporter(watch, b.Clock)
	progress.Excuse(func(err error) bool { return endedBy(ctx, err) })
	return source.New(source.Options{
		Registry: b.Registry, Store: b.Store, Fetch: b.Fetch,
		Progress: progress, Jobs: runtime.NumCPU(),
		Limit: func(ctx context.Context, f func(context.Context) error) error { return f(ctx) },
	})
}

// endedBy reports whether err is the end of ctx.
func endedBy(ctx context.Context, err error) bool {
	cause := context.Cause(ctx)
	return errors.Is(err, context.Canceled) || cause != nil && errors.Is(err, cause)
}
