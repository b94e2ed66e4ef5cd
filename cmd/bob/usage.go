package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A usageError is a command line that can't be followed.
type usageError struct {
	msg string
	// Which flag is wrong, if it is one, and of a repeatable one with which value.
	flag, value string
}

func (e *usageError) Error() string { return e.msg }

func usageErrorf(format string, args ...any) error {
	return &usageError{msg: fmt.Sprintf(format, args...)}
}

// about returns err, which says what is wrong with a flag, or with that value of a
// repeatable one.
func about(flag, value string, err error) error {
	if e, ok := errors.AsType[*usageError](err); ok {
		e.flag, e.value = flag, value
	}
	return err
}

// firstWrong returns, if err joins what is wrong with several flags, the one of them
// that is first in args, as interspersed returns them. Variables come last.
func firstWrong(err error, args []string) error {
	wrong := usageErrors(err)
	if len(wrong) < 2 {
		return err
	}
	place := func(e *usageError) int {
		at := len(args)
		for i, arg := range slices.Backward(args) { // of a repeated flag the last one counts
			name, value, ok := strings.Cut(arg, "=")
			if !ok && i+1 < len(args) {
				value = args[i+1]
			}
			if name == "--"+e.flag && (e.value == value || e.value == "" && at == len(args)) {
				at = i
			}
		}
		return at
	}
	return slices.MinFunc(wrong, func(a, b *usageError) int { return place(a) - place(b) })
}

// usageErrors returns the errors that err joins, nil if one of them is another error.
func usageErrors(err error) []*usageError {
	if e, ok := err.(*usageError); ok { //nolint:errorlint // what wraps one is another error
		return []*usageError{e}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var all []*usageError
	for _, one := range joined.Unwrap() {
		some := usageErrors(one)
		if some == nil {
			return nil
		}
		all = append(all, some...)
	}
	return all
}
