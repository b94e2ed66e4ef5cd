package progress

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/bobbuild/bob/executor/event"
)

// Mode selects a view. The zero value is Auto.
type Mode int

// The modes, in the order in which [ParseMode] lists them.
const (
	Auto    Mode = iota // TTY on a terminal that can do it, else Plain
	Plain               // lines in the style of buildx
	TTY                 // a live picture; needs a terminal
	Quiet               // only the output of what failed
	RawJSON             // BuildKit's SolveStatus, one JSON object per line
)

// String returns the name that [ParseMode] accepts.
func (m Mode) String() string {
	switch m {
	case Auto:
		return "auto"
	case Plain:
		return "plain"
	case TTY:
		return "tty"
	case Quiet:
		return "quiet"
	case RawJSON:
		return "rawjson"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// ParseMode returns the mode called name, the empty name being Auto. The error
// lists the choices.
func ParseMode(name string) (Mode, error) {
	if name == "" {
		return Auto, nil
	}
	for m := Auto; m <= RawJSON; m++ {
		if name == m.String() {
			return m, nil
		}
	}
	return Auto, fmt.Errorf("progress mode %q is unknown: choose auto, plain, tty, quiet or rawjson", name)
}

// View shows a build's events. Both methods are safe for concurrent use.
type View interface {
	// Event shows e. It may block as long as the writer does. It keeps neither e
	// nor its Data. After Close it does nothing.
	Event(e event.Event)
	// Close shows what is still held back and what failed, stops the view's
	// goroutines and returns the first error of writing. It leaves the writer
	// open. Closing again does nothing and returns the same error.
	Close() error
}

// New returns the view of the given mode writing to w. The caller must close
// it. It fails for an unknown mode, and for TTY if w is not a terminal.
func New(mode Mode, w io.Writer, o Options) (View, error) {
	if o.LogLimit == 0 {
		o.LogLimit = DefaultLogLimit
	}
	if o.LogRate == 0 {
		o.LogRate = DefaultLogRate
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	terminal := asTerminal(w)
	if mode == Auto {
		mode = Plain
		if terminal != nil && o.Term != "dumb" {
			mode = TTY
		}
	}
	switch mode {
	case Plain:
		return newPlain(w, o), nil
	case TTY:
		if terminal == nil {
			return nil, fmt.Errorf("progress mode tty: the output is not a terminal: choose auto or plain")
		}
		return newTTY(terminal, o), nil
	case Quiet:
		return newQuiet(w), nil
	case RawJSON:
		return newRawJSON(w, o), nil
	case Auto:
	}
	return nil, fmt.Errorf("progress mode %v is unknown", mode)
}

// asTerminal returns w as a file if it is a terminal, else nil.
func asTerminal(w io.Writer) *os.File {
	f, ok := w.(*os.File)
	if !ok || f == nil || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return f
}
