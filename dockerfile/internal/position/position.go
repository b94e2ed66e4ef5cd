// Package position says where in a Dockerfile something is, and what is wrong there.
package position

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// Error is a mistake in a Dockerfile, or in how it was asked to be built.
// Every error of package dockerfile that concerns the Dockerfile is one, exactly
// once: Err never holds another.
type Error struct {
	Location
	Err error
}

// Error gives the location followed by the cause, as
// "Dockerfile:12: unknown instruction: RNU (did you mean RUN?)".
func (e *Error) Error() string { return e.String() + ": " + e.Err.Error() }

// Unwrap returns the cause without its location.
func (e *Error) Unwrap() error { return e.Err }

// Location is a range of whole lines of a Dockerfile. It keeps the text alive
// from which [Location.Excerpt] is cut. It is comparable and immutable.
type Location struct {
	File       string // name as given to Parse
	Start, End int    // first and last line, counted from 1; both 0 for the file as a whole

	text *Text
}

// String returns "Dockerfile:12", where 12 is the first line, or the name alone
// for the file as a whole.
func (l Location) String() string {
	if l.Start == 0 {
		return l.File
	}
	return fmt.Sprintf("%s:%d", l.File, l.Start)
}

// Excerpt renders the lines with a few around them, as BuildKit does: a line
// with the location, then the numbered lines between two separators, those of
// the location marked with ">>>". It ends in a newline. It is empty when there
// is no line to show.
func (l Location) Excerpt() string {
	if l.text == nil || l.Start < 1 || l.Start > len(l.text.Lines) {
		return ""
	}
	end := min(max(l.Start, l.End), len(l.text.Lines))
	around := 1
	if end == l.Start {
		around = 2
	}
	const separator = "--------------------\n"
	var b strings.Builder
	b.WriteString(l.String() + "\n" + separator)
	for n := max(1, l.Start-around); n <= min(end+around, len(l.text.Lines)); n++ {
		mark := "   "
		if n >= l.Start && n <= end {
			mark = ">>>"
		}
		fmt.Fprintf(&b, " %3d | %s %s\n", n, mark, l.text.Lines[n-1])
	}
	b.WriteString(separator)
	return b.String()
}

// Text is the text that locations point into. It is immutable.
type Text struct {
	Name  string
	Lines []string
}

// At returns the location of the lines first to last.
func (t *Text) At(first, last int) Location {
	return Location{File: t.Name, Start: first, End: max(first, last), text: t}
}

// Whole returns the location of the file as a whole.
func (t *Text) Whole() Location { return Location{File: t.Name, text: t} }

// Of returns the location that BuildKit's parser gave to an instruction.
func (t *Text) Of(ranges []parser.Range) Location {
	if len(ranges) == 0 {
		return t.Whole()
	}
	return t.At(ranges[0].Start.Line, max(ranges[len(ranges)-1].Start.Line, ranges[len(ranges)-1].End.Line))
}

// Locate gives err a location unless it has one. It removes locations that BuildKit's
// parser put around the cause. Of nil it returns nil.
func Locate(err error, l Location) error {
	if err == nil {
		return nil
	}
	if located, ok := errors.AsType[*Error](err); ok {
		return located
	}
	return &Error{Location: l, Err: Unlocated(err)}
}

// Unlocated removes the location from an error, whether it is an *Error or comes from
// BuildKit's parser.
func Unlocated(err error) error {
	if located, ok := errors.AsType[*Error](err); ok {
		return located.Err
	}
	if located, ok := errors.AsType[*parser.LocationError](err); ok {
		return located.Unwrap()
	}
	return err
}
