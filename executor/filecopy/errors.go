package filecopy

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/agext/levenshtein"
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
	// Excluded is the ignore pattern that hides the source, "" if no pattern does.
	Excluded string
	// Suggestion is a source that exists and looks alike, "" if there is no such
	// source.
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

// nearest returns the name that differs least from want, "" if no name is near.
func nearest(want string, names []string) string {
	best, limit := "", max(1, len(want)/3)+1
	for _, name := range names {
		if strings.EqualFold(name, want) {
			return name
		}
		if d := levenshtein.Distance(want, name, levenshtein.NewParams().MaxCost(limit-1)); d < limit {
			best, limit = name, d
		}
	}
	return best
}
