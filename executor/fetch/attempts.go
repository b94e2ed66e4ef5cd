package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/go-git/go-git/v5/plumbing"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// errBroken is a body that ended early or stopped coming.
var errBroken = errors.New("the transfer broke off")

// silence is that nothing arrived for too long.
type silence struct{ after time.Duration }

func (e *silence) Error() string {
	return fmt.Sprintf("the server is silent: nothing came for %s", e.after)
}

// retried calls attempt until it succeeds, fails for good, or patience is at its end.
// what names it in notices. An attempt gets a watchdog, which ends its context, and so
// it, when nothing moves for too long.
func (c *Client) retried(ctx context.Context, what string, attempt func(context.Context, *watchdog) error) error {
	attempts := c.o.Patience.Begin()
	for {
		err := c.watched(ctx, attempt)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		quiet, silent := errors.AsType[*silence](err)
		if !transient(err) || silent && quiet.after > attempts.Limit() {
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
func (c *Client) watched(ctx context.Context, attempt func(context.Context, *watchdog) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dog := newWatchdog(c.o.IdleTimeout, cancel)
	defer dog.sleep()
	err := attempt(ctx, dog)
	quiet, silent := errors.AsType[*silence](context.Cause(ctx))
	if _, left := errors.AsType[*leftError](err); err != nil && silent && !left {
		return quiet
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
	_, silent := errors.AsType[*silence](err)
	return silent || errors.Is(err, errBroken) || patience.Passing(err)
}

// askedWait is how long a server asks to wait.
func askedWait(err error) time.Duration {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.after
	}
	return 0
}

// A watchdog ends an attempt in which nothing moves for too long. Its methods may be
// called concurrently.
type watchdog struct {
	idle   time.Duration
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	limit  time.Duration
	timer  *time.Timer
	asleep bool
}

// newWatchdog returns a watchdog that is awake and gives the time idle to what moves.
func newWatchdog(idle time.Duration, cancel context.CancelCauseFunc) *watchdog {
	w := &watchdog{idle: idle, limit: idle, cancel: cancel}
	w.timer = time.AfterFunc(idle, w.bite)
	return w
}

func (w *watchdog) bite() {
	w.mu.Lock()
	limit := w.limit
	w.mu.Unlock()
	w.cancel(&silence{limit})
}

// allow gives what comes next some times the idle time.
func (w *watchdog) allow(times time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.limit = times * w.idle; !w.asleep {
		w.timer.Reset(w.limit)
	}
}

// move notes that something moved.
func (w *watchdog) move() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.asleep {
		w.timer.Reset(w.limit)
	}
}

// sleep has it sleep from now on: it isn't the server that is waited for.
func (w *watchdog) sleep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asleep = true
	w.timer.Stop()
}

// wake ends a sleep.
func (w *watchdog) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asleep = false
	w.timer.Reset(w.limit)
}
