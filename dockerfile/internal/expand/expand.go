// Package expand replaces the variables in the words of a Dockerfile, within bounds of
// what that may make.
package expand

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/containers/storage/pkg/regexp"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

const (
	// maxExpansion is how many bytes the variables of one word may amount
	// to. It keeps a file of a few lines from filling the memory by repeated
	// doubling, and is well above what the kernel takes as one argument
	// (128 KiB).
	maxExpansion = 1 << 20

	// maxReplacement is how many bytes ${name//pattern/text} may make. Sizes
	// are multiplied there, before the meter could see the result.
	maxReplacement = 16 << 20
)

// Lexer expands words within bounds. It is not safe for concurrent use.
type Lexer struct {
	*shell.Lex
	escape rune
}

// New returns a Lexer for words in which escape is the escape character.
func New(escape rune) Lexer { return Lexer{shell.NewLex(escape), escape} }

// Word replaces the variables in a word and removes its quotes.
func (l Lexer) Word(word string, env shell.EnvGetter) (string, error) {
	match, err := l.Match(word, env)
	return match.Result, err
}

// Match is like Word and tells which variables there were.
func (l Lexer) Match(word string, env shell.EnvGetter) (out shell.ProcessWordResult, err error) {
	err = l.within(word, env, func(env shell.EnvGetter) (err error) {
		out, err = l.ProcessWordWithMatches(word, env)
		return err
	})
	if len(out.Result) > len(word)+maxExpansion {
		return shell.ProcessWordResult{}, errTooLarge()
	}
	return out, err
}

// Words is like Word and splits the result at spaces that are not quoted.
func (l Lexer) Words(word string, env shell.EnvGetter) (out []string, err error) {
	err = l.within(word, env, func(env shell.EnvGetter) (err error) {
		out, err = l.ProcessWords(word, env)
		return err
	})
	return out, err
}

// within has a word expanded unless it grows too large.
func (l Lexer) within(word string, env shell.EnvGetter, expand func(shell.EnvGetter) error) error {
	if l.replacementSize(word, env) > maxReplacement {
		return errTooLarge()
	}
	m := &meter{EnvGetter: env}
	if err := expand(m); err != nil {
		return err
	}
	if m.used > maxExpansion {
		return errTooLarge()
	}
	return nil
}

func errTooLarge() error {
	return fmt.Errorf("the variables expand to more than %d bytes", maxExpansion)
}

// meter passes variables on until they amount to more than maxExpansion.
type meter struct {
	shell.EnvGetter
	used int
}

// Get implements shell.EnvGetter.
func (m *meter) Get(key string) (string, bool) {
	v, ok := m.EnvGetter.Get(key)
	if m.used += len(v); m.used > maxExpansion {
		v = ""
	}
	return v, ok
}

// Constant tells whether a word is the same before and after expansion.
func Constant(word string) bool { return !strings.ContainsAny(word, "$\\`'\"") }

// Names returns the names of the variables in a word, in their order. A name that stands
// there twice is returned twice.
func Names(word string) []string {
	var names []string
	for _, m := range variable.FindAllStringSubmatch(word, -1) {
		names = append(names, m[1])
	}
	return names
}

var (
	replacement = regexp.Delayed(`^\$\{[\pL\pN_]*(//?)`)
	variable    = regexp.Delayed(`\$\{?(\pN+|[\pL\pN_]+)`)
)

// replacementSize returns a bound of what all ${name//pattern/text} in a word
// can make; see bound.
func (l Lexer) replacementSize(word string, env shell.EnvGetter) int {
	total := 0
	var open []byte // what is open: 'p' a pattern, '{' the rest of a ${}, '"' a quote
	start, depth, deepest := 0, 0, 0
	var all []bool     // for each open ${}: it replaces all
	outermost := false // of all, which is gone when its end is found
	for i := 0; i < len(word); {
		r, size := utf8.DecodeRuneInString(word[i:])
		top := byte(0)
		if len(open) > 0 {
			top = open[len(open)-1]
		}
		switch {
		case r == l.escape:
			_, next := utf8.DecodeRuneInString(word[i+size:])
			size += next
		case r == '\'' && !l.SkipProcessQuotes && top != '"':
			for i+size < len(word) && word[i+size] != '\'' {
				size++
			}
			size = min(size+1, len(word)-i)
		case r == '"' && !l.SkipProcessQuotes && top == '"':
			open = open[:len(open)-1]
		case r == '"' && !l.SkipProcessQuotes:
			open = append(open, '"')
		case r == '$' && i+1 < len(word) && word[i+1] == '{':
			kind, isAll := byte('{'), false
			size++
			if m := replacement.FindStringSubmatch(word[i:]); m != nil {
				kind, isAll, size = 'p', m[1] == "//", len(m[0])
			}
			if len(all) == 0 {
				start, depth, deepest, outermost = i, 0, 0, isAll
			}
			if isAll {
				depth++
				deepest = max(deepest, depth)
			}
			open, all = append(open, kind), append(all, isAll)
		case r == '/' && top == 'p':
			open[len(open)-1] = '{'
		case r == '}' && top == '{':
			open = open[:len(open)-1]
			if all[len(all)-1] {
				depth--
			}
			if all = all[:len(all)-1]; len(all) == 0 && deepest > 0 {
				total = min(total+bound(word[start:i+1], outermost, deepest, env), maxReplacement+1)
			}
		}
		i += size
	}
	if len(all) > 0 && deepest > 0 {
		total += bound(word[start:], outermost, deepest, env) // not closed, as far as seen here
	}
	return total
}

// bound returns how many bytes an expression can make, or more than maxReplacement. An
// expression of its own makes its variable's length times the length of the rest, with the
// variables there. With depth levels of replacing all in it, it is all of that to the
// power of depth+1.
func bound(expression string, replacesAll bool, depth int, env shell.EnvGetter) int {
	size, first := len(expression)+1, 0
	for i, name := range Names(expression) {
		value, _ := env.Get(name)
		if i == 0 {
			first = len(value) + 1
		} else {
			size += len(value)
		}
	}
	if replacesAll && depth == 1 {
		if first > maxReplacement/size {
			return maxReplacement + 1
		}
		return first * size
	}
	size += first
	out := size
	for range depth {
		if out > maxReplacement/size {
			return maxReplacement + 1
		}
		out *= size
	}
	return out
}
