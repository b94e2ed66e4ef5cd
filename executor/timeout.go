package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bobbuild/bob/dockerfile"
)

// A TimeoutError says that something was ended because it took longer than the user
// wanted. If it is the cause of a build's context, the error of the build names the
// steps that were under way.
type TimeoutError struct {
	Flag  string // that set the limit
	Limit time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("ended after %s, the limit of %s", e.Limit, e.Flag)
}

// An overdueError is the TimeoutError of a step that was under way, not of one that
// waited.
type overdueError struct{ *TimeoutError }

func (e *overdueError) Unwrap() error { return e.TimeoutError }

// A stopwatch bounds the steps of a build, and knows which took too long. The zero value
// sets no limit.
type stopwatch struct {
	limit time.Duration // of a step; 0 is unlimited

	mu      sync.Mutex
	overdue []error // of steps, with their places
}

// bounded calls f, the work of a step, with a context that ends when f has taken too
// long.
func (w *stopwatch) bounded(ctx context.Context, f func(ctx context.Context) error) error {
	if w.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, w.limit, &TimeoutError{"--step-timeout", w.limit})
		defer cancel()
	}
	err := f(ctx)
	// The end of another step is a cause, too, with that step's error around it.
	if late, ok := context.Cause(ctx).(*TimeoutError); ok && err != nil { //nolint:errorlint // as said
		return &overdueError{late}
	}
	return err
}

// place gives err the place of step, unless it has one already or the step is not
// to blame.
func (w *stopwatch) place(err error, step dockerfile.Step) error {
	placed := locate(err, step)
	if _, ok := errors.AsType[*overdueError](err); ok && placed != err { //nolint:errorlint // whether it was wrapped
		w.mu.Lock()
		w.overdue = append(w.overdue, placed)
		w.mu.Unlock()
	}
	return placed
}

// blame returns why a build ended whose group of goroutines has the first error err: the
// errors of all steps that were under way when time was up, or else the cause of the end
// of caller, the context that the one of the group, life, was made of, if that came first.
func (w *stopwatch) blame(caller, life context.Context, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := errors.AsType[*TimeoutError](err); ok && len(w.overdue) > 0 {
		return errors.Join(w.overdue...)
	}
	// What ends a context first is its cause: caller's end, or an error of the group.
	if end := context.Cause(caller); end != nil && end == context.Cause(life) { //nolint:errorlint // that very error
		return end
	}
	return err
}

// locate gives err the place of step, unless it has a place already or step is not to
// blame.
func locate(err error, step dockerfile.Step) error {
	if _, ok := errors.AsType[*StepError](err); ok || errors.Is(err, context.Canceled) {
		return err
	}
	if _, waited := err.(*TimeoutError); waited { //nolint:errorlint // in another error it is the step's
		return err
	}
	return &StepError{Step: step.Text, Location: step.Location, Err: err}
}
