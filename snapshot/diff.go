package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bobbuild/bob/snapshot/internal/layers"
	"github.com/bobbuild/bob/snapshot/owners"
	"golang.org/x/sys/unix"
)

// Diff returns the layer tar, uncompressed, of what the snapshot changed against
// its parent. Its bytes are the same each time, whenever and however often it is
// called: entries are sorted, owners are those of this user namespace, and of the
// extended attributes only file capabilities are in it. Sockets are left out.
// Modification times later than latest are written as latest, if that isn't nil;
// then the bytes don't depend on when the snapshot was made either. Reading fails
// when ctx ends. The caller closes the reader, to the end of which it may read or
// not.
func (sn *Snapshot) Diff(ctx context.Context, latest *time.Time) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, context.Cause(ctx))
	}
	st, err := sn.parentStack()
	if err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, err)
	}
	clock, err := noLaterThan(latest)
	if err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, err)
	}
	return stream(ctx, func(ctx context.Context, w io.Writer) error {
		defer st.Close()
		if err := newWalker(st, clock).writeTrees(ctx, w, Tree{Root: sn.layers[0], Owners: sn.store.Owners()}); err != nil {
			return fmt.Errorf("diff snapshot %s: %w", sn.id, err)
		}
		return nil
	}), nil
}

// parentStack returns the layers below sn, also those that it hides.
func (sn *Snapshot) parentStack() (*layers.Stack, error) {
	m, err := sn.store.readMeta(sn.id)
	if err != nil || m.Parent == "" {
		return layers.New(nil, sn.store.Owners(), sn.store.marks), err
	}
	if sn.store.indexed() {
		tree, err := sn.store.nodes(m.Parent)
		return layers.OfTree(tree, sn.store.Owners(), sn.store.marks), err
	}
	parent, err := sn.store.Snapshot(m.Parent)
	if err != nil {
		return nil, err
	}
	return layers.New(parent.layers, sn.store.Owners(), sn.store.marks), nil
}

// Archive returns the whole tree t as a tar, entries sorted, its root itself left
// out, with file capabilities and user attributes. Sockets are left out too. Every
// modification time is written as at, if that isn't nil. Reading fails when ctx ends
// or when a file changes its size meanwhile. The caller closes the reader, and leaves
// the tree in place until then.
func Archive(ctx context.Context, t Tree, at *time.Time) (io.ReadCloser, error) {
	return ArchiveTrees(ctx, []Tree{t}, at)
}

// A Tree is a directory as part of an archive.
type Tree struct {
	Name   string        // of the directory that holds it there; "" puts it at the top
	Root   string        // its place on this disk
	Owners owners.Keeper // how it has owners; [Store.Owners] for a root of a store
}

// ArchiveTrees is [Archive] of several trees in one tar, in their order. The
// directories that they are named after belong to root, with the mode 0755.
func ArchiveTrees(ctx context.Context, trees []Tree, at *time.Time) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("archive: %w", context.Cause(ctx))
	}
	clock, err := always(at)
	if err != nil {
		return nil, fmt.Errorf("archive: %w", err)
	}
	return stream(ctx, func(ctx context.Context, w io.Writer) error {
		return newWalker(nil, clock).writeTrees(ctx, w, trees...)
	}), nil
}

// asIs is the clock that leaves times as they are on the disk.
func asIs(t unix.Timespec) unix.Timespec { return t }

// noLaterThan is the clock that stops at latest, if that isn't nil.
func noLaterThan(latest *time.Time) (func(unix.Timespec) unix.Timespec, error) {
	if latest == nil {
		return asIs, nil
	}
	limit, err := unix.TimeToTimespec(*latest)
	return func(t unix.Timespec) unix.Timespec {
		if t.Sec > limit.Sec || t.Sec == limit.Sec && t.Nsec > limit.Nsec {
			return limit
		}
		return t
	}, err
}

// always is the clock that shows at and nothing else, if that isn't nil.
func always(at *time.Time) (func(unix.Timespec) unix.Timespec, error) {
	if at == nil {
		return asIs, nil
	}
	stopped, err := unix.TimeToTimespec(*at)
	return func(unix.Timespec) unix.Timespec { return stopped }, err
}

// streaming is the reading end of a goroutine that writes.
type streaming struct {
	*io.PipeReader

	cancel context.CancelFunc
	ended  chan struct{}
}

// stream returns what write writes, in a goroutine of its own, and its error.
func stream(ctx context.Context, write func(context.Context, io.Writer) error) io.ReadCloser {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	s := &streaming{PipeReader: r, cancel: cancel, ended: make(chan struct{})}
	unblock := context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer close(s.ended)
		defer unblock()
		w.CloseWithError(write(ctx, w))
	}()
	return s
}

// Close ends the goroutine and waits until it has let go of its files.
func (s *streaming) Close() error {
	s.cancel()
	err := s.PipeReader.Close()
	<-s.ended
	return err
}

var errWhiteoutName = errors.New("its name begins with " + layers.WhiteoutPrefix + ", which an image layer can't hold: it means a removed file there")
