package filecopy

import (
	"fmt"
	"path"
	"strings"

	"github.com/moby/patternmatcher"
)

// within says which of the files below a source directory are copied: those
// that match the pattern of --parents and none of --exclude. Its paths are
// relative to that directory, as in BuildKit, where a path that matches takes
// all below it along.
type within struct {
	include, exclude *patternmatcher.PatternMatcher // nil: all, none
	parts            []string                       // of the include pattern
}

func newWithin(src Source) (*within, error) {
	w := &within{}
	var err error
	if src.Parents != "" {
		if w.include, err = compile([]string{src.Parents}); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", src.Parents, err)
		}
		w.parts = strings.Split(path.Clean(src.Parents), "/")
	}
	if len(src.Exclude) > 0 {
		if w.exclude, err = compile(src.Exclude); err != nil {
			return nil, fmt.Errorf("exclude patterns %q: %w", src.Exclude, err)
		}
	}
	return w, nil
}

// compile makes a matcher whose patterns are known to be right: New checks only
// the syntax of filepath.Match.
func compile(patterns []string) (*patternmatcher.PatternMatcher, error) {
	m, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	_, err = m.MatchesOrParentMatches("x")
	return m, err
}

// verdict is what a within says of one path.
type verdict struct {
	included bool // it is copied
	closed   bool // nothing below it is either
	include  matchInfo
	exclude  matchInfo
}

// match judges rel, a name in a directory of which parent was said.
func (w *within) match(rel string, parent verdict) (verdict, error) {
	v := verdict{included: true}
	var err error
	if w.include != nil {
		if v.included, v.include, err = w.include.MatchesUsingParentResults(rel, parent.include); err != nil {
			return v, fmt.Errorf("match %q: %w", rel, err)
		}
		v.closed = !v.included && !w.mayInclude(rel)
	}
	if w.exclude != nil {
		var excluded bool
		if excluded, v.exclude, err = w.exclude.MatchesUsingParentResults(rel, parent.exclude); err != nil {
			return v, fmt.Errorf("match %q with the exclude patterns: %w", rel, err)
		}
		if excluded {
			v.included = false
			v.closed = v.closed || !w.exclude.Exclusions()
		}
	}
	return v, nil
}

// mayInclude reports whether something below the directory rel may match the
// include pattern: directories that can't lead there aren't read.
func (w *within) mayInclude(rel string) bool {
	for i, name := range strings.Split(rel, "/") {
		if i >= len(w.parts) {
			return false
		}
		if strings.Contains(w.parts[i], "**") {
			return true
		}
		if ok, err := path.Match(w.parts[i], name); err == nil && !ok {
			return false
		}
	}
	return true
}
