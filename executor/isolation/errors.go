package isolation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bobbuild/bob/executor/obstacle"
)

// enterError is an error of Enter about an obstacle.
type enterError struct {
	what     string
	err      error
	obstacle *obstacle.Obstacle
}

func (e *enterError) Error() string {
	return fmt.Sprintf("%s: %v: %v", e.what, e.err, e.obstacle)
}

// Unwrap returns the system's error and the obstacle.
func (e *enterError) Unwrap() []error { return []error{e.err, e.obstacle} }

// capitalised returns the text that the C library has for errno, which differs
// from Go's in its first letter.
func capitalised(errno unix.Errno) string {
	text := errno.Error()
	return strings.ToUpper(text[:1]) + text[1:]
}

// modesError holds the errors of all modes, each obstacle once.
type modesError []error

func modesRefused(errs []error) modesError {
	var seen Mode
	return slices.DeleteFunc(errs, func(err error) bool { return !seen.add(err) })
}

func (e modesError) Error() string {
	return errors.Join(e...).Error() + "\n`bob doctor` shows all that builds need"
}

func (e modesError) Unwrap() []error { return e }

// Reason returns the obstacle of an error of this package. Of one about several modes it
// names all that is in their way, and how to have the best.
func Reason(err error) *obstacle.Obstacle {
	if all, ok := errors.AsType[modesError](err); ok {
		var m Mode
		for _, err := range all {
			m.add(err)
		}
		return obstacle.New(m.Why(), m.Obstacles[0].Fix)
	}
	if found := new(obstacle.Obstacle); errors.As(err, &found) {
		return found
	}
	return obstacle.New(err.Error(), "")
}
