package progress

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/bobbuild/bob/executor/event"
)

const (
	// holdTime is how long a vertex that runs beside the one being shown waits
	// before it interrupts, so that the two don't alternate line by line.
	holdTime = 2 * time.Second
	// holdBytes is how much output may wait.
	holdBytes = 256 << 10

	// A transfer is shown when it begins and ends, after statusTime, and after
	// statusPart if it has advanced by a tenth.
	statusTime = 5 * time.Second
	statusPart = time.Second

	// A line that is overwritten again and again is shown at this interval.
	overwriteTime = time.Second
)

// plain writes lines. One vertex is current: the one whose header came last.
// Lines of others are held until it ends or holdTime is over.
type plain struct {
	o Options

	mu       sync.Mutex
	w        *bufio.Writer // its first error sticks
	vertices table[*plainVertex]
	current  *plainVertex // nil if no vertex that was shown still runs
	begun    bool         // something has been written
	apart    bool         // the last line belongs to no vertex
	scratch  []byte

	held      int         // bytes in vertices' pending
	heldSince time.Time   // by the events' time
	timer     *time.Timer // releases what is held if no event does; nil if nothing is

	closed bool
	err    error
}

type plainVertex struct {
	vertex

	limit    limiter
	waiting  bool   // it isn't current but has something to show
	pending  []byte // its lines, may be empty if only the header waits
	statuses map[string]*plainStatus
	progress [2]overwriting // by stream
}

// overwriting is what is known of lines that end in a carriage return.
type overwriting struct {
	shown   time.Time // when one was shown last
	skipped bool      // a later one was not
}

type plainStatus struct {
	began     time.Time
	shown     time.Time
	current   int64 // as shown
	completed bool
}

func newPlain(w io.Writer, o Options) *plain {
	return &plain{o: o, w: bufio.NewWriterSize(w, 32<<10)}
}

// Event implements [View].
func (p *plain) Event(e event.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	switch {
	case e.Vertex > 0:
		p.vertexEvent(e)
	case e.Kind == event.Warning:
		p.remark("WARN: " + clean(e.Name))
	}
	_ = p.w.Flush() // the error sticks; Close returns it
}

func (p *plain) vertexEvent(e event.Event) {
	v := p.vertices.get(e.Vertex, func() *plainVertex {
		return &plainVertex{
			vertex:   newVertex(e.Vertex, false),
			limit:    newLimiter(p.o),
			statuses: make(map[string]*plainStatus),
		}
	})
	v.start(e)
	emit := func(l line) { p.logLine(v, l) }
	switch e.Kind {
	case event.Start:
		p.show(v, e.Time, nil)
	case event.Log:
		v.log(e, emit)
	case event.Status:
		p.status(v, e)
	case event.Warning:
		p.showf(v, e.Time, "WARN: %s", clean(e.Name))
	case event.Cache:
		p.showf(v, e.Time, "%s", cacheLine(e))
	case event.Done:
		v.done(e, emit)
		p.showf(v, e.Time, "%s", v.outcome())
		clear(v.statuses)
	}
	p.settle(e.Time)
}

// outcome is the last line of a vertex.
func (v *plainVertex) outcome() string {
	switch {
	case v.canceled():
		return "CANCELED"
	case v.failed():
		return "ERROR: " + v.err
	case v.cached:
		return "CACHED"
	}
	return fmt.Sprintf("DONE %.1fs", v.age(v.ended).Seconds())
}

// logLine shows a line of output unless a limit is reached or it is overwritten
// too soon to be read.
func (p *plain) logLine(v *plainVertex, l line) {
	progress := &v.progress[l.stream]
	if l.end == endReturn {
		progress.skipped = !progress.shown.IsZero() && l.at.Sub(progress.shown) < overwriteTime
		if progress.skipped {
			return
		}
		progress.shown = l.at
	} else if l.repeat && !progress.skipped {
		return
	}
	age := l.at.Sub(v.started)
	ok, notice := v.limit.take(int64(len(l.text)+1), age)
	switch {
	case ok:
		p.scratch = append(strconv.AppendInt(append(p.scratch[:0], '#'), int64(v.number), 10), ' ')
		p.scratch = appendStamp(p.scratch, age)
		if len(l.text) > 0 {
			p.scratch = append(append(p.scratch, ' '), l.text...)
		}
		p.scratch = append(p.scratch, '\n')
		p.show(v, l.at, p.scratch)
	case notice != "":
		p.showf(v, l.at, "%s", notice)
	}
}

// status shows how far a transfer is, not too often.
func (p *plain) status(v *plainVertex, e event.Event) {
	s := v.statuses[e.ID]
	if s == nil {
		s = &plainStatus{began: e.Time}
		v.statuses[e.ID] = s
	}
	since := e.Time.Sub(s.shown)
	switch {
	case s.completed:
		return
	case e.Completed, s.shown.IsZero(), since >= statusTime:
	case since >= statusPart && e.Total > 0 && e.Current-s.current >= e.Total/10:
	default:
		return
	}
	s.shown, s.current, s.completed = e.Time, e.Current, e.Completed
	text := clean(e.ID)
	if m := measure(e.Current, e.Total); m != "" {
		text += " " + m
	}
	text += fmt.Sprintf(" %.1fs", max(0, e.Time.Sub(s.began)).Seconds())
	if e.Completed {
		text += " done"
	}
	p.showf(v, e.Time, "%s", text)
}

// showf shows one line of v, putting its number before it.
func (p *plain) showf(v *plainVertex, at time.Time, format string, args ...any) {
	p.scratch = fmt.Appendf(p.scratch[:0], "#%d ", v.number)
	p.scratch = append(fmt.Appendf(p.scratch, format, args...), '\n')
	p.show(v, at, p.scratch)
}

// show writes lines of v, or holds them while another vertex is current. Without
// lines it shows the header alone.
func (p *plain) show(v *plainVertex, at time.Time, lines []byte) {
	if p.current == nil || p.current == v {
		p.turn(v)
		p.write(lines)
		return
	}
	if p.timer == nil {
		p.heldSince = at
		p.timer = time.AfterFunc(holdTime, p.timeout)
	}
	v.waiting = true
	v.pending = append(v.pending, lines...)
	p.held += len(lines)
	if p.held > holdBytes {
		p.release()
	}
}

// settle lets others go on once the current vertex has ended or they have waited
// long enough.
func (p *plain) settle(now time.Time) {
	if p.current != nil && !p.current.running() {
		p.current = nil
	}
	if p.timer != nil && (p.current == nil || now.Sub(p.heldSince) >= holdTime) {
		p.release()
	}
}

// timeout does the same when no event comes.
func (p *plain) timeout() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.timer == nil {
		return
	}
	p.release()
	_ = p.w.Flush()
}

// release writes what is held: first of the vertices that have ended, so that
// the last can stay current.
func (p *plain) release() {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	ended, running := make([]*plainVertex, 0, len(p.vertices)), []*plainVertex(nil)
	for _, v := range p.vertices {
		switch {
		case !v.waiting:
		case v.running():
			running = append(running, v)
		default:
			ended = append(ended, v)
		}
	}
	for _, v := range append(ended, running...) {
		p.turn(v)
		p.write(v.pending)
		v.waiting, v.pending = false, nil
		if !v.running() {
			p.current = nil
		}
	}
	p.held = 0
}

// turn makes v current.
func (p *plain) turn(v *plainVertex) {
	if p.current == v {
		return
	}
	if p.current != nil && p.current.running() {
		p.writef("#%d ...\n", p.current.number)
	}
	if p.begun {
		p.writef("\n")
	}
	p.writef("#%d %s\n", v.number, v.name)
	p.current, p.begun, p.apart = v, true, false
}

// remark shows a line that belongs to no vertex.
func (p *plain) remark(text string) {
	if p.current == nil {
		if p.begun && !p.apart {
			p.writef("\n")
		}
		p.begun, p.apart = true, true
	}
	p.writef("%s\n", text)
}

func (p *plain) writef(format string, args ...any) {
	p.write(fmt.Appendf(nil, format, args...))
}

func (p *plain) write(b []byte) {
	_, _ = p.w.Write(b) // the error sticks; Close returns it
}

// Close implements [View].
func (p *plain) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return p.err
	}
	p.closed = true
	for _, v := range p.vertices {
		if v.running() { // the build broke off
			v.flush(time.Time{}, func(l line) { p.logLine(v, l) })
		}
	}
	p.release()
	for _, v := range p.vertices {
		p.write(v.appendFailure(nil))
	}
	if err := p.w.Flush(); err != nil {
		p.err = fmt.Errorf("write progress: %w", err)
	}
	return p.err
}
