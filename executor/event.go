package executor

import "time"

// EventKind says what an [Event] reports and thereby which of its fields are
// meaningful. The zero value is no kind; receivers ignore it.
type EventKind int

// The kinds of events. Of one vertex, EventStart comes first and EventDone
// last, each once; the others come any number of times between them.
const (
	// EventStart: the vertex Vertex, called Name, begins.
	EventStart EventKind = iota + 1
	// EventLog: the command of Vertex wrote Data to Stream.
	EventLog
	// EventStatus: the transfer or other measured part ID of Vertex stands at
	// Current of Total bytes, or is Completed.
	EventStatus
	// EventDone: Vertex has ended, Cached or not; Err says why it failed.
	EventDone
	// EventWarning: Name is a remark for the user; Vertex may be 0.
	EventWarning
	// EventCache: the result of Vertex was known (Cached), or Name says why not.
	EventCache
)

// Event is one thing that happened in a build. A build emits a single stream
// of events; everything that users and machines see of its progress (package
// executor/progress) is a view of that stream.
//
// An Event is a value. The receiver doesn't change Data and doesn't keep it
// after the call that delivered it, so the sender may reuse the buffer.
type Event struct {
	// Time is when it happened. Views compute every duration from it.
	Time time.Time
	Kind EventKind
	// Vertex numbers the step the event belongs to: 1, 2, 3 … in order of
	// appearance. It is 0 only for a warning about the whole build.
	Vertex int
	// Name is, for EventStart, the title of the vertex in BuildKit's style
	// ("[build 2/5] RUN make") and, for EventWarning and
	// EventCache, the text.
	Name string
	// Cached, for EventDone and EventCache, says that the result was found in the
	// cache.
	Cached bool
	// Err, for EventDone, is why the vertex failed: "" if it didn't,
	// "canceled" if it was stopped because the build was.
	Err string
	// Stream, for EventLog, is 1 for standard output and 2 for standard error.
	Stream int
	// Data, for EventLog, is raw output in arbitrary chunks: neither whole
	// lines, nor whole runes, nor safe to print.
	Data []byte
	// ID, for EventStatus, names what is measured, unique within the vertex:
	// "sha256:0123456789ab", "extracting sha256:0123456789ab".
	ID string
	// Current and Total, for EventStatus, are bytes. Total 0 is unknown; both 0
	// is an activity without a measure.
	Current, Total int64
	// Completed, for EventStatus, marks the last event of ID.
	Completed bool
}
