package event

import (
	"fmt"
	"sync"
	"time"
)

// A Reporter numbers the vertices of a build and sends their events. It may be used by
// several goroutines.
type Reporter struct {
	sink  func(Event)
	clock func() time.Time
	// excused reports whether an error isn't the fault of the vertex that ends with it.
	excused func(error) bool

	mu     sync.Mutex
	n      int
	warned map[string]bool
	failed map[string]bool // by title
}

// NewReporter returns a reporter to sink, which several goroutines call. A nil sink
// discards the events. The clock tells the time of each event.
func NewReporter(sink func(Event), clock func() time.Time) *Reporter {
	if sink == nil {
		sink = func(Event) {}
	}
	return &Reporter{
		sink: sink, clock: clock, excused: func(error) bool { return false },
		warned: make(map[string]bool), failed: make(map[string]bool),
	}
}

// Excuse sets which errors aren't the fault of the vertices that end with them, such as
// the end of the build. These vertices are shown as canceled. It is called before
// anything starts.
func (r *Reporter) Excuse(excused func(error) bool) { r.excused = excused }

// Canceled reports whether err isn't the fault of the vertex that it comes from.
func (r *Reporter) Canceled(err error) bool { return err != nil && r.excused(err) }

func (r *Reporter) send(e Event) {
	e.Time = r.clock()
	r.sink(e)
}

// first reports whether text isn't in seen yet, and puts it there.
func (r *Reporter) first(seen map[string]bool, text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := seen[text]
	seen[text] = true
	return !was
}

// Warn sends a warning with text, once, since several platforms may have the same
// warning.
func (r *Reporter) Warn(text string) {
	if r.first(r.warned, text) {
		r.send(Event{Kind: Warning, Name: text})
	}
}

// Waiting returns a function to call with what another process does, while the
// operation called title waits for it.
func (r *Reporter) Waiting(title, does string) func(pid int) {
	return func(pid int) {
		r.Warn(fmt.Sprintf("%s: waiting for process %d, another bob, which %s", title, pid, does))
	}
}
