package layertar

import (
	"context"
	"io"
)

// streaming is the reading end of a goroutine that writes.
type streaming struct {
	*io.PipeReader

	cancel context.CancelFunc
	ended  chan struct{}
}

// Stream returns what write writes, in a goroutine of its own, and its error.
func Stream(ctx context.Context, write func(context.Context, io.Writer) error) io.ReadCloser {
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
