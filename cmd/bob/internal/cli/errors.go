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
	// The flag that is wrong, if it is a flag, and the wrong value of a repeated flag.
	flag, value string
}

func (e *UsageError) Error() string { return e.msg }

// Errorf returns a [UsageError].
func Errorf(format string, args ...any) error {
	return &UsageError{msg: fmt.Sprintf(format, args...)}
}

// Wrong returns a [UsageError] about a flag and the value that it was given. The
// message begins with both; format and args make the rest.
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

// About notes in err which flag and value it is about, so that Run can choose the error
// that comes first in the command line. A value that isn't in the command line stands
// for the last value of the flag.
func About(flag, value string, err error) error {
	if e, ok := errors.AsType[*UsageError](err); ok {
		e.flag, e.value = flag, value
	}
	return err
}

// firstWrong returns the error of the flag that comes first in args, if err joins the
// errors of several flags. args are as arrange returns them. Errors of variables come
// last.
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
