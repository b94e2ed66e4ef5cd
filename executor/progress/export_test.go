package progress

import "github.com/bobbuild/bob/executor/event"

// Screen is the tty view's picture without a terminal.
type Screen struct{ s *screen }

func NewScreen(o Options) Screen { return Screen{newScreen(o)} }

func (s Screen) Event(e event.Event)      { s.s.event(e) }
func (s Screen) Resize(width, height int) { s.s.resize(width, height) }
func (s Screen) Live() string             { return s.s.live() }
func (s Screen) Final() string            { return string(s.s.final()) }
