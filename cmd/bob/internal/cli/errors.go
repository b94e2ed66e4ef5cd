package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A UsageError is a command line that can't be followed.
type UsageError struct {
	msg string
	// Which flag is wrong, if it is one, and which of its values where it is repeated.
	flag, value string
}

func (e *UsageError) Error() string { return e.msg }

// Errorf returns a [UsageError].
func Errorf(format string, args ...any) error {
	return &UsageError{msg: fmt.Sprintf(format, args...)}
}

// Wrong returns a [UsageError] about a flag and the value that it was given. The
// message begins with both, and format and args make the rest.
func Wrong(flag string, value any, format string, args ...any) error {
	text := fmt.Sprint(value)
	return About(flag, text, Errorf("--%s %s: %s", flag, text, fmt.Sprintf(format, args...)))
}

// OneOf returns a [UsageError] about a flag whose value isn't among the words. There must
// be two words or more.
func OneOf(flag, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	return Wrong(flag, value, "want %s", Words(words))
}

// Words returns the words, of which there are two or more, as "a, b or c".
func Words(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// About returns err, which says what is wrong with a value of a flag, for the user to
// be told of the first. A value that isn't in the command line stands for the last one.
func About(flag, value string, err error) error {
	if e, ok := errors.AsType[*UsageError](err); ok {
		e.flag, e.value = flag, value
	}
	return err
}

// firstWrong returns, if err joins what is wrong with several flags, the one of them
// that is first in args, as arrange returns them. Variables come last.
func firstWrong(err error, args []string) error {
	wrong := usageErrors(err)
	if len(wrong) < 2 {
		return err
	}
	place := func(e *UsageError) int {
		at := len(args)
		for i, arg := range args {
			name, value, _ := strings.Cut(arg, "=")
			if name != "--"+e.flag {
				continue
			}
			if at = i; value == e.value {
				break
			}
		}
		return at
	}
	return slices.MinFunc(wrong, func(a, b *UsageError) int { return place(a) - place(b) })
}

// usageErrors returns the errors that err joins, nil if one of them is another error.
func usageErrors(err error) []*UsageError {
	if e, ok := err.(*UsageError); ok { //nolint:errorlint // what wraps one is another error
		return []*UsageError{e}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var all []*UsageError
	for _, one := range joined.Unwrap() {
		some := usageErrors(one)
		if some == nil {
			return nil
		}
		all = append(all, some...)
	}
	return all
}
