package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Diff returns the layer tar, uncompressed, of what the snapshot changed against
// its parent. Its bytes are the same each time, whenever and however often it is
// called: entries are sorted, owners are those of this user namespace, and of the
// attributes only those are in it that a layer can carry. Sockets are left out.
// Reading fails when ctx ends. The caller closes the reader, to the end of which
// it may read or not.
func (sn *Snapshot) Diff(ctx context.Context) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, context.Cause(ctx))
	}
	lower, err := sn.parentLayers()
	if err != nil {
		return nil, fmt.Errorf("diff snapshot %s: %w", sn.id, err)
	}
	return stream(ctx, func(ctx context.Context, w io.Writer) error {
		st := newStack(lower)
		defer st.close()
		if err := writeTree(ctx, w, sn.layers[0], st); err != nil {
			return fmt.Errorf("diff snapshot %s: %w", sn.id, err)
		}
		return nil
	}), nil
}

// parentLayers returns the layers below sn, also those that it hides.
func (sn *Snapshot) parentLayers() ([]string, error) {
	m, err := sn.store.readMeta(sn.id)
	if err != nil || m.Parent == "" {
		return nil, err
	}
	parent, err := sn.store.Snapshot(m.Parent)
	if err != nil {
		return nil, err
	}
	return parent.layers, nil
}

// Archive returns the whole tree below the directory root as a tar, entries
// sorted, the root itself left out. Sockets are left out too. Reading fails when
// ctx ends or when a file changes its size meanwhile. The caller closes the
// reader, and leaves root in place until then.
func Archive(ctx context.Context, root string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("archive %s: %w", root, context.Cause(ctx))
	}
	return stream(ctx, func(ctx context.Context, w io.Writer) error {
		if err := writeTree(ctx, w, root, nil); err != nil {
			return fmt.Errorf("archive %s: %w", root, err)
		}
		return nil
	}), nil
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

var errWhiteoutName = errors.New("its name begins with " + whiteoutPrefix + ", which an image layer can't hold: it means a removed file there")
