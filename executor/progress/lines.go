package progress

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	// maxLine is the length in bytes at which a line is cut into pieces.
	maxLine = 64 << 10
	// cutMark ends every piece of a cut line but the last.
	cutMark = "[...]"

	maxSequence = 256  // bytes of a control sequence before it is given up
	maxString   = 4096 // bytes of a control string before it is given up
)

// ending says how a line came to its end.
type ending int

const (
	endNewline ending = iota // it is complete
	endReturn                // a carriage return: the next line overwrites it
	endCut                   // it grew too long: the next line continues it
)

// line is a piece of output that is safe to print.
type line struct {
	at     time.Time // when its first byte was written
	text   []byte    // without its end; valid until the callback returns
	end    ending
	stream int // 0 is standard output, 1 standard error; set by vertex
	// repeat marks a complete line whose text has been delivered before, with
	// endReturn.
	repeat bool
}

// state is where a splitter stands in the grammar of ECMA-48 (5th edition),
// 5.4 to 5.6.
type state int

const (
	inText     state = iota
	inEscape         // after ESC, or ESC and intermediate bytes
	inSequence       // in a control sequence, after CSI
	inString         // in a control string, after OSC, DCS, APC, PM or SOS
)

// splitter turns the chunks of one output stream into lines of valid UTF-8
// without control characters other than tabs. Sequences and runes may be
// split over chunks in any way. It holds at most a few times maxLine bytes. The
// zero value is ready; it isn't safe for concurrent use.
type splitter struct {
	color bool // keep SGR sequences that are harmless

	now     time.Time // of the chunk being read
	at      time.Time // of the first byte of buf
	buf     []byte    // the line so far
	last    []byte    // the line that a carriage return ended
	visible bool      // buf shows something
	cut     bool      // pieces of this line have been delivered
	cr      bool      // a carriage return was the last byte

	state  state
	length int               // bytes since state was entered
	params []byte            // of the control sequence
	odd    bool              // the control sequence can't be an SGR to keep
	part   [utf8.UTFMax]byte // the start of an incomplete rune
	nrune  int               // and how many bytes it has
}

// write reads a chunk and calls emit for each line it ends.
func (s *splitter) write(at time.Time, data []byte, emit func(line)) {
	s.now = at
	for i := 0; i < len(data); {
		if s.state == inText && s.nrune == 0 {
			if n := printable(data[i:]); n > 0 {
				s.endReturn(emit)
				s.putRun(data[i:i+n], emit)
				i += n
				continue
			}
			if r, n := utf8.DecodeRune(data[i:]); n > 1 {
				s.putRune(r, emit)
				i += n
				continue
			}
		}
		if s.step(data[i], emit) {
			i++
		}
	}
}

// flush ends the stream: what is left of a line is delivered.
func (s *splitter) flush(at time.Time, emit func(line)) {
	s.now = at
	if s.nrune > 0 {
		s.nrune = 0
		s.putRune(utf8.RuneError, emit)
	}
	s.state = inText
	if len(s.buf) > 0 || len(s.last) > 0 {
		s.newline(emit)
	}
}

// partial returns the text of the unfinished line, valid until the next write.
func (s *splitter) partial() []byte {
	if s.visible {
		return s.buf
	}
	return s.last
}

// printable returns how many bytes at the start of data are plain ASCII.
func printable(data []byte) int {
	for i, b := range data {
		if (b < ' ' && b != '\t') || b > '~' {
			return i
		}
	}
	return len(data)
}

// step reads one byte and reports whether it was consumed; if not, the state
// has changed and the byte is to be read again.
func (s *splitter) step(b byte, emit func(line)) bool {
	s.length++
	switch s.state {
	case inEscape:
		return s.stepEscape(b)
	case inSequence:
		return s.stepSequence(b, emit)
	case inString:
		return s.stepString(b)
	case inText:
	}
	switch {
	case s.nrune > 0 || b >= utf8.RuneSelf:
		return s.stepRune(b, emit)
	case b == '\n':
		s.newline(emit)
	case b == '\r':
		s.cr = true
	case b == '\x1b':
		s.enter(inEscape)
	case b == '\t' || (b >= ' ' && b <= '~'):
		s.endReturn(emit)
		s.put([]byte{b}, emit)
	}
	return true
}

func (s *splitter) enter(st state) {
	s.state, s.length = st, 0
	s.params, s.odd = s.params[:0], false
}

func (s *splitter) stepEscape(b byte) bool {
	switch {
	case b == '[' && s.length == 1:
		s.enter(inSequence)
	case strings.IndexByte("]PX^_", b) >= 0 && s.length == 1:
		s.enter(inString)
	case b >= ' ' && b <= '/' && s.length < maxSequence: // intermediate byte
	case b == '\x1b':
		s.enter(inEscape)
	case b >= '0' && b <= '~': // final byte
		s.enter(inText)
	default:
		s.enter(inText)
		return false
	}
	return true
}

func (s *splitter) stepSequence(b byte, emit func(line)) bool {
	switch {
	case s.length > maxSequence:
		s.enter(inText)
		return false
	case b >= '0' && b <= '?':
		s.params = append(s.params, b)
	case b >= ' ' && b <= '/':
		s.odd = true
	case b >= '@' && b <= '~':
		keep := s.color && b == 'm' && !s.odd
		s.endSequence(keep, emit)
	default:
		s.enter(inText)
		return false
	}
	return true
}

// endSequence ends a control sequence, keeping what is harmless of an SGR.
func (s *splitter) endSequence(keep bool, emit func(line)) {
	if keep {
		if sgr := harmless(string(s.params)); sgr != "" {
			s.endReturn(emit)
			s.put([]byte(sgr), emit)
		}
	}
	s.enter(inText)
}

// stepString skips a control string. A terminal would wait for its terminator for
// ever; here the end of the line ends it too, so that no output is lost.
func (s *splitter) stepString(b byte) bool {
	switch {
	case b == '\a' || b == 0x18 || b == 0x1a: // BEL, CAN, SUB
		s.enter(inText)
	case b == '\x1b': // ST is ESC and a backslash
		s.enter(inEscape)
	case b == '\n' || b == '\r' || s.length > maxString:
		s.enter(inText)
		return false
	}
	return true
}

// stepRune collects the bytes of a rune that isn't whole in one chunk, or isn't
// one.
func (s *splitter) stepRune(b byte, emit func(line)) bool {
	s.part[s.nrune] = b
	s.nrune++
	seq := s.part[:s.nrune]
	if !utf8.FullRune(seq) {
		return true
	}
	r, size := utf8.DecodeRune(seq)
	first := s.nrune == 1
	s.nrune = 0
	s.putRune(r, emit)
	if r == utf8.RuneError && size == 1 {
		return first // b may begin something else
	}
	return true
}

// putRune adds a rune beyond ASCII, or acts on it if it is a control.
func (s *splitter) putRune(r rune, emit func(line)) {
	switch {
	case r == 0x9b: // CSI
		s.enter(inSequence)
		return
	case r == 0x90 || r == 0x98 || (r >= 0x9d && r <= 0x9f): // DCS, SOS, OSC, PM, APC
		s.enter(inString)
		return
	case r >= 0x80 && r <= 0x9f:
		return
	case (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069):
		return // these reorder what follows on the line, also our own text
	case r == 0x2028 || r == 0x2029:
		r = ' '
	}
	s.endReturn(emit)
	var b [utf8.UTFMax]byte
	s.put(b[:utf8.EncodeRune(b[:], r)], emit)
	s.visible = true
}

// put adds b, which is never split over two pieces.
func (s *splitter) put(b []byte, emit func(line)) {
	if len(s.buf)+len(b) > maxLine {
		s.buf = append(s.buf, cutMark...)
		s.deliver(endCut, emit)
	}
	if len(s.buf) == 0 {
		s.at = s.now
	}
	s.buf = append(s.buf, b...)
}

// putRun adds ASCII text, which may be split anywhere.
func (s *splitter) putRun(b []byte, emit func(line)) {
	s.visible = s.visible || len(bytes.TrimLeft(b, " \t")) > 0
	for len(b) > 0 {
		n := min(len(b), max(1, maxLine-len(s.buf)))
		s.put(b[:n], emit)
		b = b[n:]
	}
}

// endReturn ends the line if a carriage return came before what comes now.
func (s *splitter) endReturn(emit func(line)) {
	if !s.cr {
		return
	}
	s.cr = false
	if !s.visible {
		s.buf = s.buf[:0]
		return
	}
	s.last = append(s.last[:0], s.buf...)
	s.deliver(endReturn, emit)
}

// newline ends the line. If nothing overwrote the text before a carriage return,
// that is what the line says.
func (s *splitter) newline(emit func(line)) {
	l := line{at: s.at, text: s.buf}
	switch {
	case !s.visible && len(s.last) > 0:
		l.text, l.repeat = s.last, true
	case len(s.buf) == 0:
		l.at = s.now
	}
	if len(l.text) > 0 || !s.cut {
		emit(l)
	}
	s.buf, s.last = s.buf[:0], s.last[:0]
	s.visible, s.cut, s.cr = false, false, false
}

// deliver emits the text gathered so far and begins the next piece.
func (s *splitter) deliver(end ending, emit func(line)) {
	s.cut = end == endCut
	emit(line{at: s.at, text: s.buf, end: end})
	s.buf, s.visible = s.buf[:0], false
}

// clean returns text as a single line that is safe to print.
func clean(text string) string {
	if printable([]byte(text)) == len(text) && strings.IndexByte(text, '\t') < 0 {
		return text
	}
	var (
		s     splitter
		parts []string
	)
	emit := func(l line) {
		if l.end != endReturn && len(l.text) > 0 {
			parts = append(parts, strings.ReplaceAll(string(l.text), "\t", " "))
		}
	}
	s.write(time.Time{}, []byte(text), emit)
	s.flush(time.Time{}, emit)
	return strings.Join(parts, " ")
}
