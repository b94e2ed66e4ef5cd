package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"golang.org/x/term"

	"github.com/bobbuild/bob/executor/event"
)

// refreshTime is how often the picture is redrawn.
const refreshTime = 100 * time.Millisecond

// tty keeps a live picture at the end of the terminal's text. Events only change
// the screen; bubbletea redraws it at intervals of refreshTime from its own goroutine.
type tty struct {
	w       *os.File
	program *tea.Program

	mu     sync.Mutex
	screen *screen
	begun  bool // the program runs, or has run
	closed bool
	runErr error // of the program, valid after ended

	ended chan struct{} // closed when the program has ended

	close sync.Once
	err   error // of Close
}

func newTTY(w *os.File, o Options) *tty {
	t := &tty{w: w, screen: newScreen(o), ended: make(chan struct{})}
	t.screen.resize(t.size())
	// Nothing is read, so the terminal stays in its mode and Ctrl-C remains a
	// signal. Signals are the command's. bubbletea would watch for SIGWINCH and
	// measure the terminal in a goroutine that outlives the program, so it isn't
	// told that the writer is a terminal. A panic is not caught, because it would
	// be reported on standard output.
	t.program = tea.NewProgram(model{t},
		tea.WithOutput(struct{ io.Writer }{w}),
		tea.WithInput(nil),
		tea.WithoutSignalHandler(),
		tea.WithoutCatchPanics(),
		tea.WithColorProfile(colorprofile.TrueColor), // rows have colours only if Options allow them
		tea.WithWindowSize(t.screen.width, t.screen.height),
		tea.WithFPS(30),
	)
	return t
}

// Event implements [View].
func (t *tty) Event(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	t.screen.event(e)
	if !t.begun { // nothing is drawn before there is something to show
		t.begun = true
		go t.run()
	}
}

// size measures the terminal, 0 by 0 if it doesn't know.
func (t *tty) size() (width, height int) {
	width, height, err := term.GetSize(int(t.w.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// run draws until Close.
func (t *tty) run() {
	defer close(t.ended)
	ended := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() { t.refresh(ended) })
	_, t.runErr = t.program.Run()
	close(ended)
	ticking.Wait()
}

// refresh makes the program draw the picture again and again, in the size that
// the terminal has by then.
func (t *tty) refresh(ended <-chan struct{}) {
	ticker := time.NewTicker(refreshTime)
	defer ticker.Stop()
	var known tea.WindowSizeMsg
	for {
		var msg tea.Msg = refreshMsg{}
		if width, height := t.size(); width != known.Width || height != known.Height {
			known = tea.WindowSizeMsg{Width: width, Height: height}
			msg = known
		}
		t.program.Send(msg) // does nothing once the program has ended
		select {
		case <-ended:
			return
		case <-ticker.C:
		}
	}
}

// Close implements [View]. It replaces the live picture, which fits the
// terminal's height, by the whole of it, followed by what failed.
func (t *tty) Close() error {
	t.close.Do(func() { t.err = t.finish() })
	return t.err
}

func (t *tty) finish() error {
	t.mu.Lock()
	t.closed = true
	begun := t.begun
	t.mu.Unlock()
	if !begun {
		return nil
	}
	t.program.Quit()
	<-t.ended

	t.mu.Lock()
	defer t.mu.Unlock()
	if t.runErr != nil {
		return fmt.Errorf("draw progress: %w", t.runErr)
	}
	if _, err := t.w.Write(t.screen.final()); err != nil {
		return fmt.Errorf("write progress: %w", err)
	}
	return nil
}

// model is what bubbletea sees of a tty.
type model struct{ t *tty }

type refreshMsg struct{}

// Init implements [tea.Model].
func (m model) Init() tea.Cmd { return nil }

// Update implements [tea.Model]. The picture is drawn after every message.
func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	if size, ok := msg.(tea.WindowSizeMsg); ok {
		m.t.mu.Lock()
		defer m.t.mu.Unlock()
		m.t.screen.resize(size.Width, size.Height)
	}
	return m, nil
}

// View implements [tea.Model].
func (m model) View() tea.View {
	m.t.mu.Lock()
	defer m.t.mu.Unlock()
	view := tea.View{DisableBracketedPasteMode: true}
	if !m.t.closed {
		view.Content = m.t.screen.live()
	}
	return view
}
