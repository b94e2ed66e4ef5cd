package filecopy

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// ErrChanged says that a file isn't any more what it was when it was selected.
// The step can be tried again from Select; what was copied is to be discarded.
var ErrChanged = errors.New("changed while it was being read")

// NotFoundError says that a source isn't in the tree. It is fs.ErrNotExist.
type NotFoundError struct {
	// Source is the pattern as it was given to Select.
	Source string
	// Target is where a symbolic link of that name leads, inside the tree, if
	// that is what isn't there.
	Target string
	// Excluded is the ignore pattern that hides the source, "" if none does.
	Excluded string
	// Suggestion is a source that exists and looks alike, "" if there is none.
	Suggestion string
}

// Error names the source in BuildKit's words, and what to do.
func (e *NotFoundError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q: not found", e.Source)
	if e.Target != "" {
		fmt.Fprintf(&b, ": it is a symbolic link to %q", e.Target)
	}
	if e.Excluded != "" {
		fmt.Fprintf(&b, ": excluded by .dockerignore (pattern %q)", e.Excluded)
	}
	if e.Suggestion != "" {
		fmt.Fprintf(&b, " (did you mean %q?)", e.Suggestion)
	}
	return b.String()
}

// Unwrap returns fs.ErrNotExist.
func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }

// nearest returns the name that differs least from want, "" if none is near.
func nearest(want string, names []string) string {
	best, limit := "", max(1, len(want)/3)+1
	for _, name := range names {
		if strings.EqualFold(name, want) {
			return name
		}
		if d := distance(want, name, limit); d < limit {
			best, limit = name, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete or change between a and b,
// or limit where it is more.
func distance(a, b string, limit int) int {
	if max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
