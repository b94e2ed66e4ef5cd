package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/go-git/go-git/v5/plumbing"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// errBroken is a body that ended early or stopped coming.
var errBroken = errors.New("the transfer broke off")

// retried calls attempt until it succeeds, fails for good, or patience is at its end.
// what names it in notices. An attempt gets a watchdog, which ends its context, and so
// it, when nothing moves for too long.
func (c *Client) retried(ctx context.Context, what string, attempt func(context.Context, *patience.Watchdog) error) error {
	attempts := c.o.Patience.Begin()
	for {
		err := c.watched(ctx, attempt)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		stall, silent := errors.AsType[*patience.StallError](err)
		if !transient(err) || silent && stall.After > attempts.Limit() {
			return err
		}
		wait, left, ok := attempts.Next(askedWait(err))
		if !ok {
			if n := attempts.Failed(); n > 1 {
				return fmt.Errorf("%w (tried %d times)", err, n)
			}
			return err
		}
		c.o.Notice(fmt.Sprintf("%s: %v; trying again in %s, for another %s at most",
			what, bare(err), wait.Round(time.Millisecond), (wait + left).Round(time.Second)))
		if err := attempts.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// watched makes one attempt, with a watchdog that is awake.
func (c *Client) watched(ctx context.Context, attempt func(context.Context, *patience.Watchdog) error) error {
	ctx, dog := patience.Watch(ctx, c.o.IdleTimeout)
	defer dog.End()
	dog.Wake()
	err := attempt(ctx, dog)
	if _, left := errors.AsType[*leftError](err); err != nil && !left {
		if stall := patience.Stalled(ctx); stall != nil {
			return stall
		}
	}
	return err
}

// transient reports whether the same request may do better a little later.
func transient(err error) bool {
	if _, ok := errors.AsType[*leftError](err); ok {
		return false
	}
	if e, ok := errors.AsType[*statusError](err); ok {
		return patience.PassingStatus(e.code)
	}
	// Most of go-git's errors don't unwrap.
	if e, ok := errors.AsType[*plumbing.UnexpectedError](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[*githttp.Err](err); ok {
		return patience.PassingStatus(e.StatusCode())
	}
	if text := err.Error(); strings.HasSuffix(text, ": "+io.ErrUnexpectedEOF.Error()) || strings.HasSuffix(text, ": "+syscall.ECONNRESET.Error()) {
		return true
	}
	return errors.Is(err, errBroken) || patience.Passing(err)
}

// askedWait is how long a server asks to wait.
func askedWait(err error) time.Duration {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.after
	}
	return 0
}

// leftError is that go-git didn't heed the end of its context.
type leftError struct{ error }

func (e *leftError) Unwrap() error { return e.error }
