package filecopy

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// ReadIgnore reads the patterns of a .dockerignore file in the order written:
// comments and blank lines dropped, a byte order mark and a leading slash
// removed, a leading "!" kept. The result is meant for OpenDir.
func ReadIgnore(r io.Reader) ([]string, error) {
	patterns, err := ignorefile.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read ignore file: %w", err)
	}
	return patterns, nil
}

// matchInfo carries the results for a directory to the names in it.
type matchInfo = patternmatcher.MatchInfo

// filter applies ignore patterns while a tree is walked from its root down. It
// isn't safe for concurrent use: the matcher compiles patterns when it first
// needs them.
type filter struct {
	matcher *patternmatcher.PatternMatcher // nil: nothing is excluded
	single  []*patternmatcher.PatternMatcher
	text    []string
	// prefixes are the directories that "!" patterns without other wildcards
	// than a trailing one lead to; anywhere says that there are also others,
	// which may match below any directory.
	prefixes []string
	anywhere bool
}

func newFilter(patterns []string) (*filter, error) {
	f := &filter{}
	if len(patterns) == 0 {
		return f, nil
	}
	all, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, fmt.Errorf("ignore patterns: %w", err)
	}
	for _, p := range all.Patterns() {
		text := p.String()
		if err := f.add(text, p.Exclusion()); err != nil {
			return nil, err
		}
		if !p.Exclusion() {
			continue
		}
		// One trailing wildcard matches nothing that the directory before it
		// doesn't lead to; of two, as in "a/*/**", the first may.
		prefix, ok := strings.CutSuffix(text, "/**")
		if !ok {
			prefix = strings.TrimSuffix(text, "/*")
		}
		if strings.ContainsAny(prefix, `*[]?^\`) {
			f.anywhere = true
		}
		f.prefixes = append(f.prefixes, prefix+"/")
	}
	f.matcher = all
	return f, nil
}

// add keeps a matcher of the one pattern, to say later which pattern excluded
// a path, and thereby compiles it: New only checks the syntax of filepath.Match.
func (f *filter) add(text string, exception bool) error {
	shown := text
	if exception {
		shown = "!" + text
	}
	one, err := patternmatcher.New([]string{text})
	if err == nil {
		_, err = one.MatchesOrParentMatches("x")
	}
	if err != nil {
		return fmt.Errorf("ignore pattern %q: %w", shown, err)
	}
	if exception {
		one = nil
	}
	f.single = append(f.single, one)
	f.text = append(f.text, shown)
	return nil
}

// match reports whether rel, a name in a directory that matched with parent,
// is excluded.
func (f *filter) match(rel string, parent matchInfo) (bool, matchInfo, error) {
	if f.matcher == nil {
		return false, matchInfo{}, nil
	}
	excluded, info, err := f.matcher.MatchesUsingParentResults(rel, parent)
	if err != nil {
		return false, info, fmt.Errorf("match %q with the ignore patterns: %w", rel, err)
	}
	return excluded, info, nil
}

// mayHold reports whether something below the excluded directory rel may be
// taken in again by a "!" pattern.
func (f *filter) mayHold(rel string) bool {
	if f.anywhere {
		return true
	}
	for _, prefix := range f.prefixes {
		if strings.HasPrefix(prefix, rel+"/") {
			return true
		}
	}
	return false
}

// culprit returns the pattern that excludes rel, for messages.
func (f *filter) culprit(rel string) string {
	for i, one := range slices.Backward(f.single) {
		if one == nil {
			continue
		}
		if ok, err := one.MatchesOrParentMatches(rel); err == nil && ok {
			return f.text[i]
		}
	}
	return ""
}
