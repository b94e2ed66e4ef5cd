package event

import (
	"bytes"
	"errors"
	"io"
)

// A Vertex is one line of the progress.
type Vertex struct {
	r *Reporter
	n int
}

// Start announces a vertex. The caller ends it by [Vertex.Done] or [Vertex.Cached].
func (r *Reporter) Start(title string) *Vertex {
	r.mu.Lock()
	r.n++
	v := &Vertex{r: r, n: r.n}
	r.mu.Unlock()
	r.send(Event{Kind: Start, Vertex: v.n, Name: title})
	return v
}

// Fail reports, once, that the vertex called title can't begin because of err, unless
// err isn't its fault.
func (r *Reporter) Fail(title string, err error) {
	if !r.Canceled(err) && r.first(r.failed, title) {
		r.Start(title).Done(err)
	}
}

// Number is the [Event.Vertex] of its events.
func (v *Vertex) Number() int { return v.n }

// Done ends the vertex, with err if that isn't nil.
func (v *Vertex) Done(err error) {
	e := Event{Kind: Done, Vertex: v.n}
	switch {
	case v.r.Canceled(err):
		e.Err = "canceled"
	case err != nil:
		e.Err = err.Error()
	}
	v.r.send(e)
}

// Cached ends the vertex, whose result was known.
func (v *Vertex) Cached() { v.r.send(Event{Kind: Done, Vertex: v.n, Cached: true}) }

// Explain reports whether the result of the vertex was known and, if not, why.
func (v *Vertex) Explain(known bool, why string) {
	v.r.send(Event{Kind: Cache, Vertex: v.n, Cached: known, Name: why})
}

// Warn is [Reporter.Warn].
func (v *Vertex) Warn(text string) { v.r.Warn(text) }

// Log returns a writer that shows what is written as output of the vertex; stream is 1
// for standard output and 2 for standard error.
func (v *Vertex) Log(stream int) io.Writer { return output{v, stream} }

type output struct {
	v      *Vertex
	stream int
}

func (o output) Write(p []byte) (int, error) {
	o.v.r.send(Event{Kind: Log, Vertex: o.v.n, Stream: o.stream, Data: bytes.Clone(p)})
	return len(p), nil
}

// statusStep is how many bytes pass between two reports of a transfer.
const statusStep = 1 << 20

// A Transfer shows the progress of one transfer of bytes. It is used by one goroutine.
type Transfer struct {
	v              *Vertex
	id             string
	current, total int64
	reported       int64
}

// Transfer announces the transfer of total bytes, 0 if that isn't known. The id is
// shown and has to be unique within the vertex.
func (v *Vertex) Transfer(id string, total int64) *Transfer {
	t := &Transfer{v: v, id: id, total: total}
	t.report(false)
	return t
}

// Reached reports that current bytes were transferred so far.
func (t *Transfer) Reached(current int64) {
	t.current = current
	if t.current-t.reported >= statusStep {
		t.report(false)
	}
}

func (t *Transfer) report(completed bool) {
	t.reported = t.current
	t.v.r.send(Event{
		Kind: Status, Vertex: t.v.n, ID: t.id,
		Current: t.current, Total: t.total, Completed: completed,
	})
}

// Count returns r as a reader whose bytes are shown as a transfer. See [Vertex.Transfer].
func (v *Vertex) Count(r io.ReadCloser, id string, total int64) io.ReadCloser {
	return &counting{r, v.Transfer(id, total)}
}

// counting is a reader whose bytes are shown as they come.
type counting struct {
	io.ReadCloser

	t *Transfer
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.t.Reached(c.t.current + int64(n))
	if errors.Is(err, io.EOF) {
		c.t.report(true)
	}
	return n, err
}
