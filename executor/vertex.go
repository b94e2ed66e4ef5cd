package executor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/bobbuild/bob/executor/filecopy"
	"github.com/bobbuild/bob/registry"
	"github.com/bobbuild/bob/snapshot"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A reporter numbers what the build does and tells the watcher.
type reporter struct {
	sink  func(Event)
	clock func() time.Time
	// ended tells what has ended the build, nil while it goes on.
	ended func() error

	mu     sync.Mutex
	n      int
	warned map[string]bool
	missed map[string]bool // by title: told by failed
}

func (r *reporter) send(e Event) {
	if r.sink == nil {
		return
	}
	e.Time = r.clock()
	r.sink(e)
}

// warn tells of text, once: the same may concern several platforms.
func (r *reporter) warn(text string) {
	r.mu.Lock()
	said := r.warned[text]
	if r.warned == nil {
		r.warned = make(map[string]bool)
	}
	r.warned[text] = true
	r.mu.Unlock()
	if !said {
		r.send(Event{Kind: EventWarning, Name: text})
	}
}

// start announces a vertex: one thing that takes time.
func (r *reporter) start(name string) *vertex {
	r.mu.Lock()
	r.n++
	v := &vertex{r: r, n: r.n}
	r.mu.Unlock()
	r.send(Event{Kind: EventStart, Vertex: v.n, Name: name})
	return v
}

// failed tells, once, that what is called title can't begin for err, unless that is no
// fault of it.
func (r *reporter) failed(title string, err error) {
	if r.canceled(err) {
		return
	}
	r.mu.Lock()
	told := r.missed[title]
	if r.missed == nil {
		r.missed = make(map[string]bool)
	}
	r.missed[title] = true
	r.mu.Unlock()
	if !told {
		r.start(title).done(err)
	}
}

// A vertex is one line of the progress.
type vertex struct {
	r *reporter
	n int
}

func (v *vertex) done(err error) {
	e := Event{Kind: EventDone, Vertex: v.n}
	switch {
	case v.r.canceled(err):
		e.Err = "canceled"
	case err != nil:
		e.Err = err.Error()
	}
	v.r.send(e)
}

// canceled reports whether err is no fault of what it comes from: that of a step, which
// has its place, or the end of the build.
func (r *reporter) canceled(err error) bool {
	if _, placed := errors.AsType[*StepError](err); placed || errors.Is(err, context.Canceled) {
		return true
	}
	if r.ended == nil {
		return false
	}
	cause := r.ended()
	return cause != nil && errors.Is(err, cause)
}

func (v *vertex) cached() { v.r.send(Event{Kind: EventDone, Vertex: v.n, Cached: true}) }

// logger returns a writer that shows what is written as output of the vertex;
// stream is 1 for standard output and 2 for standard error.
func (v *vertex) logger(stream int) io.Writer { return vertexLog{v, stream} }

type vertexLog struct {
	v      *vertex
	stream int
}

func (l vertexLog) Write(p []byte) (int, error) {
	l.v.r.send(Event{Kind: EventLog, Vertex: l.v.n, Stream: l.stream, Data: append([]byte(nil), p...)})
	return len(p), nil
}

// owner is lookupOwner with a warning about what the image doesn't know.
func (v *vertex) owner(ctx context.Context, in *snapshot.Active, spec string) (*filecopy.Owner, error) {
	for _, name := range accountFiles {
		if err := in.ShowFile(ctx, name); err != nil {
			return nil, err
		}
	}
	owner, unknown, err := lookupOwner(in.Root(), spec)
	for _, u := range unknown {
		v.r.warn(fmt.Sprintf("%s: not in the image's account files; 0 is taken", u))
	}
	return owner, err
}

// statusStep is how many bytes pass between two reports of a transfer.
const statusStep = 1 << 20

// A transfer counts the bytes of one blob for the progress.
type transfer struct {
	v              *vertex
	id             string
	current, total int64
	reported       int64
}

func (v *vertex) transfer(id string, total int64) *transfer {
	t := &transfer{v: v, id: id, total: total}
	t.report(false)
	return t
}

func (t *transfer) add(n int) {
	t.current += int64(n)
	if t.current-t.reported >= statusStep {
		t.report(false)
	}
}

func (t *transfer) report(completed bool) {
	t.reported = t.current
	t.v.r.send(Event{
		Kind: EventStatus, Vertex: t.v.n, ID: t.id,
		Current: t.current, Total: t.total, Completed: completed,
	})
}

// counting is a reader whose bytes are shown as they come.
type counting struct {
	io.ReadCloser
	t *transfer
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.t.add(n)
	if errors.Is(err, io.EOF) {
		c.t.report(true)
	}
	return n, err
}

// download returns a function that opens blob d of img and shows its bytes as
// they come.
func (v *vertex) download(img *registry.Image, d ocispec.Descriptor) func(context.Context) (io.ReadCloser, error) {
	return func(ctx context.Context) (io.ReadCloser, error) {
		rc, err := img.Blob(ctx, d)
		if err != nil {
			return nil, err
		}
		return &counting{rc, v.transfer(d.Digest.String(), d.Size)}, nil
	}
}
