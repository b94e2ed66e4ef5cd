package progress

import "time"

// Defaults of [Options], equal to BuildKit's.
const (
	DefaultLogLimit = 2 << 20   // bytes of output shown of one vertex
	DefaultLogRate  = 200 << 10 // bytes of output shown per second of one vertex
)

// Options tunes a view. The zero value is the default.
type Options struct {
	// NoColor keeps colours and dimming out of the tty view, also those that
	// the build's commands print. The other views never have any.
	NoColor bool
	// Term is the terminal type ($TERM). On "dumb", Auto chooses Plain.
	Term string
	// LogLimit is how many bytes of output are shown of one vertex in the
	// plain and rawjson views; a notice marks where output was left out.
	// 0 means DefaultLogLimit; negative means no limit.
	LogLimit int64
	// LogRate is how many bytes of output are shown per second of one vertex, on
	// average since its start, in the same views. 0 means DefaultLogRate;
	// negative means no limit.
	LogRate int64
	// Now is the clock of the tty view's running times; nil means time.Now. It
	// must tell the same time as the events.
	Now func() time.Time
}
