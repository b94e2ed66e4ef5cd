package progress

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/bobbuild/bob/executor/event"
)

// The JSON shape of BuildKit's client.SolveStatus, as of moby/buildkit v0.34.
type (
	solveStatus struct {
		Vertexes []*jsonVertex `json:"vertexes,omitempty"`
		Statuses []jsonStatus  `json:"statuses,omitempty"`
		Logs     []jsonLog     `json:"logs,omitempty"`
		Warnings []jsonWarning `json:"warnings,omitempty"`
		Cache    []jsonCache   `json:"cache,omitempty"` // which BuildKit lacks
	}
	jsonVertex struct {
		Digest    digest.Digest `json:"digest,omitempty"`
		Name      string        `json:"name,omitempty"`
		Started   *time.Time    `json:"started,omitempty"`
		Completed *time.Time    `json:"completed,omitempty"`
		Cached    bool          `json:"cached,omitempty"`
		Error     string        `json:"error,omitempty"`
	}
	jsonStatus struct {
		ID        string        `json:"id"`
		Vertex    digest.Digest `json:"vertex,omitempty"`
		Name      string        `json:"name,omitempty"`
		Total     int64         `json:"total,omitempty"`
		Current   int64         `json:"current"`
		Timestamp time.Time     `json:"timestamp"`
		Started   *time.Time    `json:"started,omitempty"`
		Completed *time.Time    `json:"completed,omitempty"`
	}
	jsonLog struct {
		Vertex    digest.Digest `json:"vertex,omitempty"`
		Stream    int           `json:"stream,omitempty"`
		Data      []byte        `json:"data"`
		Timestamp time.Time     `json:"timestamp"`
	}
	jsonCache struct {
		Vertex digest.Digest `json:"vertex"`
		Hit    bool          `json:"hit"`
		Reason string        `json:"reason,omitempty"`
	}
	jsonWarning struct {
		Vertex digest.Digest `json:"vertex,omitempty"`
		Level  int           `json:"level,omitempty"`
		Short  []byte        `json:"short,omitempty"`
	}
)

const (
	rawChunk      = 32 << 10               // bytes of output in one log entry
	rawStatusTime = 100 * time.Millisecond // between two entries of one status
)

// rawJSON writes one object for each event.
type rawJSON struct {
	o Options

	mu       sync.Mutex
	w        *bufio.Writer // its first error sticks
	enc      *json.Encoder
	vertices map[int]*rawVertex
	closed   bool
	err      error
}

type rawVertex struct {
	jsonVertex

	started  time.Time
	limit    limiter
	statuses map[string]*rawStatus
}

type rawStatus struct {
	began, shown time.Time
	completed    bool
}

func newRawJSON(w io.Writer, o Options) *rawJSON {
	buffered := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(buffered)
	enc.SetEscapeHTML(false) // && in a name stays legible
	return &rawJSON{o: o, w: buffered, enc: enc, vertices: make(map[int]*rawVertex)}
}

// Event implements [View].
func (r *rawJSON) Event(e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if e.Vertex < 1 {
		if e.Kind == event.Warning {
			r.write(solveStatus{Warnings: []jsonWarning{{Level: 1, Short: []byte(e.Name)}}})
		}
		return
	}
	v := r.vertex(e)
	switch e.Kind {
	case event.Start:
		r.write(solveStatus{Vertexes: []*jsonVertex{&v.jsonVertex}})
	case event.Log:
		r.log(v, e)
	case event.Status:
		r.status(v, e)
	case event.Warning:
		r.write(solveStatus{Warnings: []jsonWarning{{Vertex: v.Digest, Level: 1, Short: []byte(e.Name)}}})
	case event.Cache:
		r.write(solveStatus{Cache: []jsonCache{{Vertex: v.Digest, Hit: e.Cached, Reason: e.Name}}})
	case event.Done:
		v.Completed, v.Cached, v.Error = &e.Time, e.Cached, e.Err
		if e.Err == "canceled" {
			v.Error = "context canceled" // by which readers know it
		}
		r.write(solveStatus{Vertexes: []*jsonVertex{&v.jsonVertex}})
	}
}

// vertex returns the vertex of e. BuildKit's digest names the definition of a
// vertex; here it only has to be the same in all entries and no other's.
func (r *rawJSON) vertex(e event.Event) *rawVertex {
	v := r.vertices[e.Vertex]
	if v == nil {
		v = &rawVertex{limit: newLimiter(r.o), statuses: make(map[string]*rawStatus), started: e.Time}
		v.Started = &v.started
		if e.Kind == event.Start {
			v.Name = e.Name
		}
		v.Digest = digest.FromString(strconv.Itoa(e.Vertex) + " " + v.Name)
		r.vertices[e.Vertex] = v
	}
	return v
}

func (r *rawJSON) log(v *rawVertex, e event.Event) {
	entry := jsonLog{Vertex: v.Digest, Stream: e.Stream, Timestamp: e.Time}
	for data := e.Data; len(data) > 0; {
		n := min(len(data), rawChunk)
		ok, notice := v.limit.take(int64(n), e.Time.Sub(v.started))
		switch {
		case ok:
			entry.Data = data[:n]
			r.write(solveStatus{Logs: []jsonLog{entry}})
		case notice != "":
			entry.Data = []byte("\n" + notice + "\n")
			r.write(solveStatus{Logs: []jsonLog{entry}})
		}
		data = data[n:]
	}
}

func (r *rawJSON) status(v *rawVertex, e event.Event) {
	s := v.statuses[e.ID]
	if s == nil {
		s = &rawStatus{began: e.Time}
		v.statuses[e.ID] = s
	}
	if s.completed || (!e.Completed && !s.shown.IsZero() && e.Time.Sub(s.shown) < rawStatusTime) {
		return
	}
	s.shown, s.completed = e.Time, e.Completed
	entry := jsonStatus{
		ID: e.ID, Vertex: v.Digest, Name: e.ID,
		Total: e.Total, Current: e.Current,
		Timestamp: e.Time, Started: &s.began,
	}
	if e.Completed {
		entry.Completed = &e.Time
	}
	r.write(solveStatus{Statuses: []jsonStatus{entry}})
}

func (r *rawJSON) write(s solveStatus) {
	if err := r.enc.Encode(s); err != nil && r.err == nil {
		r.err = fmt.Errorf("write progress: %w", err)
	}
	_ = r.w.Flush() // the error sticks; Close returns it
}

// Close implements [View].
func (r *rawJSON) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return r.err
	}
	r.closed = true
	if err := r.w.Flush(); err != nil && r.err == nil {
		r.err = fmt.Errorf("write progress: %w", err)
	}
	return r.err
}
