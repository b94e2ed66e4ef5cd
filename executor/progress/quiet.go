package progress

import (
	"fmt"
	"io"
	"sync"

	"github.com/bobbuild/bob/executor/event"
)

// quiet shows nothing but what failed, when it is closed.
type quiet struct {
	w io.Writer

	mu       sync.Mutex
	vertices table[*vertex]
	closed   bool
	err      error
}

func newQuiet(w io.Writer) *quiet {
	return &quiet{w: w}
}

// Event implements [View].
func (q *quiet) Event(e event.Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || e.Vertex < 1 {
		return
	}
	v := q.vertices.get(e.Vertex, func() *vertex {
		v := newVertex(e.Vertex, false)
		return &v
	})
	v.start(e)
	switch e.Kind {
	case event.Log:
		v.log(e, func(line) {})
	case event.Done:
		v.done(e, func(line) {})
	case event.Start, event.Status, event.Warning, event.Cache:
	}
}

// Close implements [View].
func (q *quiet) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return q.err
	}
	q.closed = true
	var b []byte
	for _, v := range q.vertices {
		b = v.appendFailure(b)
	}
	if len(b) > 0 {
		if _, err := q.w.Write(b); err != nil {
			q.err = fmt.Errorf("write progress: %w", err)
		}
	}
	return q.err
}
