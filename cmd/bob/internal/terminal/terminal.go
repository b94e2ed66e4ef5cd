// Package terminal makes text safe to show: Dockerfiles, images, registries and file
// names were made by others, and a terminal obeys what it takes for a command.
package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape returns s with every byte that a terminal might take for a command, and
// every character that doesn't show, written as in Go.
func Escape(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && strings.HasPrefix(s[i:], string(utf8.RuneError)):
			b.WriteRune(r)
		case r == utf8.RuneError:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// EscapeLines is [Escape] of each line of s; tabs stay. Everything that bob writes for
// people passes through it.
func EscapeLines(s string) string {
	var b strings.Builder
	for rest := s; rest != ""; {
		n := strings.IndexAny(rest, "\n\t")
		if n < 0 {
			b.WriteString(Escape(rest))
			break
		}
		b.WriteString(Escape(rest[:n]) + rest[n:n+1])
		rest = rest[n+1:]
	}
	return b.String()
}

// escapeJSON returns the JSON text s with the same characters in JSON's escapes.
// Outside of strings, the only such characters of JSON text are white space.
func escapeJSON(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) || r == '\n' {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// WriteJSON writes v to w as one indented JSON text that is safe to show.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(JSON(w))
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// JSON returns a writer of JSON texts, which escapes them as escapeJSON does and writes
// them to w. A write may end anywhere in a text. It isn't safe for concurrent use.
func JSON(w io.Writer) io.Writer { return &jsonWriter{w: w} }

type jsonWriter struct {
	w    io.Writer
	rest []byte // the start of a character
}

func (j *jsonWriter) Write(p []byte) (int, error) {
	text := append(j.rest, p...)
	whole := len(text)
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				whole -= n
			}
			break
		}
	}
	j.rest = append([]byte(nil), text[whole:]...)
	if _, err := io.WriteString(j.w, escapeJSON(string(text[:whole]))); err != nil {
		return 0, err
	}
	return len(p), nil
}
