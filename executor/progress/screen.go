package progress

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/bobbuild/bob/executor/event"
)

const (
	logRows    = 6  // last lines shown of a running vertex
	statusRows = 5  // transfers shown of a running vertex
	timedWidth = 24 // columns below which times are left out
	tabWidth   = 8
)

// screen is the state of the picture and draws it. It isn't safe for concurrent use.
type screen struct {
	o             Options
	width, height int // columns and rows
	vertices      table[*screenVertex]
	warnings      []string // clean
	cache         []string // clean; what is told of the steps' results
	began, last   time.Time
}

type screenVertex struct {
	vertex

	statuses []*screenStatus // in order of appearance; of a running vertex
}

type screenStatus struct {
	id             string // clean
	key            string // as in the event
	began          time.Time
	ended          time.Time // zero until it is completed
	current, total int64
}

func newScreen(o Options) *screen {
	return &screen{o: o, width: 80, height: 24}
}

// resize sets the size of the terminal. A terminal that doesn't know its own (0)
// leaves the default.
func (s *screen) resize(width, height int) {
	if width > 0 && height > 0 {
		s.width, s.height = width, height
	}
}

func (s *screen) event(e event.Event) {
	if s.began.IsZero() {
		s.began = e.Time
	}
	if e.Time.After(s.last) {
		s.last = e.Time
	}
	if e.Kind == event.Warning {
		s.warnings = append(s.warnings, clean(e.Name))
	}
	if e.Vertex < 1 {
		return
	}
	v := s.vertices.get(e.Vertex, func() *screenVertex {
		return &screenVertex{vertex: newVertex(e.Vertex, !s.o.NoColor)}
	})
	v.start(e)
	switch e.Kind {
	case event.Log:
		v.log(e, func(line) {})
	case event.Status:
		v.status(e)
	case event.Cache:
		s.cache = append(s.cache, fmt.Sprintf("#%d %s: %s", v.number, v.name, cacheLine(e)))
	case event.Done:
		v.done(e, func(line) {})
		v.statuses = nil
	case event.Start, event.Warning:
	}
}

func (v *screenVertex) status(e event.Event) {
	i := slices.IndexFunc(v.statuses, func(s *screenStatus) bool { return s.key == e.ID })
	if i < 0 {
		i = len(v.statuses)
		v.statuses = append(v.statuses, &screenStatus{id: clean(e.ID), key: e.ID, began: e.Time})
	}
	s := v.statuses[i]
	s.current, s.total = e.Current, e.Total
	if e.Completed {
		s.ended = e.Time
	}
}

// live draws the picture for now, at most as wide and high as the terminal.
func (s *screen) live() string {
	now := s.o.Now()
	rows := []string{s.row(s.header(now), "", styleNone)}
	// One row stays free, so that the terminal needn't scroll.
	if room := s.height - 2; room > 0 {
		rows = append(rows, s.body(now, room)...)
	}
	return strings.Join(rows, "\n")
}

// final draws the picture of the ended build, as high as needed, with the
// warnings and the output of what failed below.
func (s *screen) final() []byte {
	var b []byte
	header, style := s.header(s.last)+" FINISHED", styleDone
	for _, v := range s.vertices {
		if v.running() || v.err != "" {
			header, style = s.header(s.last), styleNone
		}
	}
	b = append(b, s.row(header, "", style)...)
	b = append(b, '\n')
	for _, v := range s.vertices {
		b = append(b, s.title(v, s.last)...)
		b = append(b, '\n')
	}
	if n := len(s.warnings); n > 0 {
		plural := "s"
		if n == 1 {
			plural = ""
		}
		b = fmt.Appendf(b, "\n %d warning%s found:\n", n, plural)
		for _, w := range s.warnings {
			b = fmt.Appendf(b, " - %s\n", w)
		}
	}
	if len(s.cache) > 0 {
		b = fmt.Appendf(b, "\n Cache:\n - %s\n", strings.Join(s.cache, "\n - "))
	}
	for _, v := range s.vertices {
		b = v.appendFailure(b)
	}
	return b
}

func (s *screen) header(now time.Time) string {
	ended := 0
	for _, v := range s.vertices {
		if !v.running() {
			ended++
		}
	}
	return fmt.Sprintf("[+] Building %.1fs (%d/%d)", max(0, now.Sub(s.began)).Seconds(), ended, len(s.vertices))
}

// body draws the vertices in at most room rows. Each running one gets its row
// first; two thirds of the rest may go to their details; what remains shows the
// vertices that ended last.
func (s *screen) body(now time.Time, room int) []string {
	var running, ended []*screenVertex
	for _, v := range s.vertices {
		if v.running() {
			running = append(running, v)
		} else {
			ended = append(ended, v)
		}
	}
	running = running[max(0, len(running)-room):]
	rest := room - len(running)
	details := s.details(running, rest-min(len(ended), (rest+2)/3), now)
	for _, d := range details {
		rest -= len(d)
	}
	var rows []string
	if len(ended) > rest {
		if rest == 0 {
			ended = nil
		} else {
			slices.SortStableFunc(ended, func(a, b *screenVertex) int {
				if a.failed() != b.failed() { // these go last and stay
					if b.failed() {
						return -1
					}
					return 1
				}
				return a.ended.Compare(b.ended)
			})
			hidden := len(ended) - rest + 1
			ended = ended[hidden:]
			rows = append(rows, s.row(fmt.Sprintf(" => ... %d finished steps", hidden), "", styleDone))
		}
	}
	for _, v := range s.vertices {
		if !slices.Contains(running, v) && !slices.Contains(ended, v) {
			continue
		}
		rows = append(rows, s.title(v, now))
		rows = append(rows, details[v]...)
	}
	return rows
}

// details draws what is below the running vertices, sharing room rows evenly.
func (s *screen) details(running []*screenVertex, room int, now time.Time) map[*screenVertex][]string {
	want := make(map[*screenVertex]int, len(running))
	give := make(map[*screenVertex]int, len(running))
	for _, v := range running {
		want[v] = min(statusRows, len(v.statuses)) + len(v.lastOutput(logRows))
	}
	for given := true; given; {
		given = false
		for _, v := range running {
			if room > 0 && give[v] < want[v] {
				give[v]++
				room--
				given = true
			}
		}
	}
	rows := make(map[*screenVertex][]string, len(running))
	for _, v := range running {
		for _, st := range v.shownStatuses(min(statusRows, give[v])) {
			rows[v] = append(rows[v], s.status(st, now))
		}
		for _, text := range v.lastOutput(min(logRows, give[v]-len(rows[v]))) {
			rows[v] = append(rows[v], s.output(text))
		}
	}
	return rows
}

// shownStatuses returns n of the statuses or fewer, those in progress first.
func (v *screenVertex) shownStatuses(n int) []*screenStatus {
	var open, closed []*screenStatus
	for _, st := range v.statuses {
		if st.ended.IsZero() {
			open = append(open, st)
		} else {
			closed = append(closed, st)
		}
	}
	slices.Reverse(closed) // the last to be completed
	all := append(open, closed...)
	return all[:min(n, len(all))]
}

// lastOutput returns the last n lines of output or fewer, also unfinished ones.
// They are valid until the next event.
func (v *screenVertex) lastOutput(n int) [][]byte {
	if n <= 0 {
		return nil
	}
	var lines [][]byte
	for l := range v.tail.lastLines(n) {
		lines = append(lines, l.text)
	}
	for i := range v.streams {
		if part := v.streams[i].partial(); len(part) > 0 {
			lines = append(lines, part)
		}
	}
	return lines[max(0, len(lines)-n):]
}

// title draws the row of a vertex.
func (s *screen) title(v *screenVertex, now time.Time) string {
	text, style := v.name, styleNone
	switch {
	case v.canceled():
		text, style = "CANCELED "+text, styleCanceled
	case v.failed():
		text, style = "ERROR "+text, styleError
	case v.cached:
		text, style = "CACHED "+text, styleDone
	case !v.running():
		style = styleDone
	}
	return s.row(" => "+text, fmt.Sprintf("%.1fs", v.age(now).Seconds()), style)
}

func (s *screen) status(st *screenStatus, now time.Time) string {
	style := styleNone
	if !st.ended.IsZero() {
		now, style = st.ended, styleDone
	}
	text := " => => " + st.id
	if m := measure(st.current, st.total); m != "" {
		text += " " + m
	}
	return s.row(text, fmt.Sprintf("%.1fs", max(0, now.Sub(st.began)).Seconds()), style)
}

// output draws a line of a command's output.
func (s *screen) output(text []byte) string {
	return s.row(" => => # "+expandTabs(string(text[:min(len(text), maxLine)])), "", styleDim)
}

// row draws text at the left and timing at the right edge, if there is space.
func (s *screen) row(text, timing, style string) string {
	room := s.width
	if s.width < timedWidth {
		timing = ""
	}
	if timing != "" {
		room -= len(timing) + 1
	}
	more := "..."
	if room <= 2*len(more) {
		more = ""
	}
	text = ansi.Truncate(text, room, more)
	if timing != "" {
		text += strings.Repeat(" ", max(0, room-ansi.StringWidth(text))+1) + timing
	}
	if s.o.NoColor {
		return text
	}
	if style != styleNone || strings.Contains(text, "\x1b") {
		text = style + text + styleReset
	}
	return text
}

// expandTabs replaces tabs by spaces up to the next multiple of tabWidth.
func expandTabs(text string) string {
	before, after, found := strings.Cut(text, "\t")
	if !found {
		return text
	}
	var b strings.Builder
	column := 0
	for found {
		b.WriteString(before)
		column += ansi.StringWidth(before)
		n := tabWidth - column%tabWidth
		b.WriteString(strings.Repeat(" ", n))
		column += n
		before, after, found = strings.Cut(after, "\t")
	}
	b.WriteString(before)
	return b.String()
}
