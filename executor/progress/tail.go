package progress

import (
	"iter"
	"time"
)

const (
	tailLines = 200       // lines kept of each vertex
	tailBytes = 256 << 10 // and at most so many bytes of text
)

// tail keeps the last lines of a vertex, whether the limits let them be shown or
// not: they may say why it fails. The zero value is empty.
type tail struct {
	ring    []tailLine
	first   int // where the oldest line is in the ring
	count   int
	bytes   int // of text
	dropped int // lines that were there before
	spare   []byte
}

type tailLine struct {
	age  time.Duration
	text []byte
}

// add appends a copy of text.
func (t *tail) add(age time.Duration, text []byte) {
	if t.ring == nil {
		t.ring = make([]tailLine, tailLines)
	}
	if t.count == tailLines {
		t.drop()
	}
	l := &t.ring[(t.first+t.count)%tailLines]
	if cap(l.text) < len(text) && cap(t.spare) >= len(text) {
		l.text, t.spare = t.spare, nil
	}
	l.age, l.text = age, append(l.text[:0], text...)
	t.count++
	t.bytes += len(text)
	for t.bytes > tailBytes {
		t.drop()
	}
}

// drop forgets the oldest line and keeps its memory for another. Only one free place
// of the ring keeps the memory of a long line.
func (t *tail) drop() {
	l := &t.ring[t.first]
	t.bytes -= len(l.text)
	if cap(l.text) > 4<<10 {
		l.text, t.spare = nil, l.text
	}
	t.first = (t.first + 1) % tailLines
	t.count--
	t.dropped++
}

// lastLines returns the last n lines or fewer, oldest first.
func (t *tail) lastLines(n int) iter.Seq[tailLine] {
	return func(yield func(tailLine) bool) {
		for i := max(0, t.count-n); i < t.count; i++ {
			if !yield(t.ring[(t.first+i)%tailLines]) {
				return
			}
		}
	}
}
