package patience

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A StallError is that no byte of a request or of its answer moved for too long. It is a
// timeout as package net has them.
type StallError struct {
	Request string // its method and host; "" if they aren't known
	After   time.Duration
}

// Error names the request.
func (e *StallError) Error() string {
	request := e.Request
	if request == "" {
		request = "the server"
	}
	return fmt.Sprintf("%s stalled: no byte moved for %s", request, e.After)
}

// Timeout implements net.Error.
func (e *StallError) Timeout() bool { return true }

// Temporary implements net.Error.
func (e *StallError) Temporary() bool { return true }

// Stalled returns the [StallError] that ended ctx, nil if it has another cause or has
// not ended.
func Stalled(ctx context.Context) error {
	if stall, ok := errors.AsType[*StallError](context.Cause(ctx)); ok {
		return stall
	}
	return nil
}

// A Watchdog ends a request in which nothing moves for too long. While it is asleep
// nothing has to move: it isn't the server that is waited for. Its methods may be called
// concurrently.
type Watchdog struct {
	idle   time.Duration
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	request string
	limit   time.Duration
	timer   *time.Timer
	asleep  bool
	ended   bool
}

// Watch returns a watchdog that is asleep, and the context that it ends with a
// [StallError] when nothing has moved for the time idle. The caller ends both by
// [Watchdog.End].
func Watch(ctx context.Context, idle time.Duration) (context.Context, *Watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &Watchdog{idle: idle, cancel: cancel, limit: idle, asleep: true}
	w.timer = time.AfterFunc(time.Hour, w.bite)
	w.timer.Stop()
	return ctx, w
}

func (w *Watchdog) bite() {
	w.mu.Lock()
	stall := &StallError{w.request, w.limit}
	w.mu.Unlock()
	w.cancel(stall)
}

// Name says which request is watched: its method and host.
func (w *Watchdog) Name(method, host string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.request = method + " to " + host
}

// Allow gives what comes next some times the idle time.
func (w *Watchdog) Allow(times int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit = time.Duration(times) * w.idle
	w.restart()
}

// Moved notes that something moved.
func (w *Watchdog) Moved() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.restart()
}

// Wake ends a sleep.
func (w *Watchdog) Wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asleep = false
	w.restart()
}

// restart begins to wait anew, if it is awake.
func (w *Watchdog) restart() {
	if !w.asleep && !w.ended {
		w.timer.Reset(w.limit)
	}
}

// Sleep has it sleep until Wake.
func (w *Watchdog) Sleep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asleep = true
	w.timer.Stop()
}

// End ends the watchdog and its context. It may be called more than once.
func (w *Watchdog) End() {
	w.mu.Lock()
	w.ended = true
	w.timer.Stop()
	w.mu.Unlock()
	w.cancel(nil)
}
