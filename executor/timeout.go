package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bobbuild/bob/dockerfile"
)

// A TimeoutError says that something was ended for taking longer than the user
// wanted. As the cause of a build's context it has the build name the steps that
// were under way.
type TimeoutError struct {
	Flag  string // that set the limit
	Limit time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("ended after %s, the limit of %s", e.Limit, e.Flag)
}

// An overdueError is the TimeoutError of what was under way, and not of what
// waited.
type overdueError struct{ *TimeoutError }

func (e *overdueError) Unwrap() error { return e.TimeoutError }

// bounded calls f, which is the work of a step, with a context that ends when that
// has taken as long as it may.
func (b *build) bounded(ctx context.Context, f func(ctx context.Context) error) error {
	if limit := b.opts.StepTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, &TimeoutError{"--step-timeout", limit})
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
func (b *build) place(err error, step dockerfile.Step) error {
	placed := locate(err, step)
	if _, ok := errors.AsType[*overdueError](err); ok && placed != err { //nolint:errorlint // whether it was wrapped
		b.mu.Lock()
		b.overdue = append(b.overdue, placed)
		b.mu.Unlock()
	}
	return placed
}

// blame returns why the build ended with err, the first error of the group: the errors
// of all steps that were under way when time was up, or else the cause of the end of
// caller, its context, if that came first.
func (b *build) blame(caller context.Context, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := errors.AsType[*TimeoutError](err); ok && len(b.overdue) > 0 {
		return errors.Join(b.overdue...)
	}
	// What ends a context first is its cause: caller's end, or an error of the group.
	if end := context.Cause(caller); end != nil && end == context.Cause(b.life) { //nolint:errorlint,contextcheck // that very error
		return end
	}
	return err
}
