package event

import "time"

// Kind says what an [Event] reports and thereby which of its fields are
// meaningful. The zero value is no kind; receivers ignore it.
type Kind int

// The kinds of events. Of one vertex, Start comes first and Done
// last, each once; the others come any number of times between them.
const (
	// Start: the vertex Vertex, called Name, begins.
	Start Kind = iota + 1
	// Log: the command of Vertex wrote Data to Stream.
	Log
	// Status: the transfer or other measured part ID of Vertex stands at
	// Current of Total bytes, or is Completed.
	Status
	// Done: Vertex has ended, Cached or not; Err says why it failed.
	Done
	// Warning: Name is a remark for the user; Vertex may be 0.
	Warning
	// Cache: the result of Vertex was known (Cached), or Name says why not.
	Cache
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
	Kind Kind
	// Vertex numbers the step the event belongs to: 1, 2, 3 … in order of
	// appearance. It is 0 only for a warning about the whole build.
	Vertex int
	// Name is, for Start, the title of the vertex in BuildKit's style
	// ("[build 2/5] RUN make") and, for Warning and
	// Cache, the text.
	Name string
	// Cached, for Done and Cache, says that the result was found in the
	// cache.
	Cached bool
	// Err, for Done, is why the vertex failed: "" if it didn't,
	// "canceled" if it was stopped because the build was.
	Err string
	// Stream, for Log, is 1 for standard output and 2 for standard error.
	Stream int
	// Data, for Log, is raw output in arbitrary chunks: neither whole
	// lines, nor whole runes, nor safe to print.
	Data []byte
	// ID, for Status, names what is measured, unique within the vertex:
	// "sha256:0123456789ab", "extracting sha256:0123456789ab".
	ID string
	// Current and Total, for Status, are bytes. Total 0 is unknown; both 0
	// is an activity without a measure.
	Current, Total int64
	// Completed, for Status, marks the last event of ID.
	Completed bool
}
