package executor

import (
	"context"
	"sync"
)

// A memo is a value that is made when it is asked for first, and that any number of
// callers wait for, each as long as its own context lasts. The zero value holds
// nothing yet. A memo may be used by several goroutines and must not be copied.
type memo[T any] struct {
	mu     sync.Mutex
	making *making[T] // nil: nobody has asked
}

// A making is one attempt to make the value of a memo.
type making[T any] struct {
	done   chan struct{} // closed when value and err are valid
	value  T
	err    error
	cancel context.CancelCauseFunc

	// Guarded by the mutex of the memo.
	waiting   int
	abandoned bool
}

// get returns the value, which makeIt makes in a goroutine of its own if nobody has
// asked before. An error is a result like a value: it isn't tried again. The context
// of makeIt has the values of ctx and neither its deadline nor its end: it ends when
// the last caller has given up, who then waits for makeIt to return. What was given
// up that way is made anew for whoever asks later.
func (m *memo[T]) get(ctx context.Context, makeIt func(ctx context.Context) (T, error)) (T, error) {
	t := m.join(ctx, makeIt)
	if t != nil {
		select {
		case <-t.done:
			return t.value, t.err
		case <-ctx.Done():
		}
	}
	if t == nil || !m.leave(t) {
		var zero T
		return zero, context.Cause(ctx)
	}
	t.cancel(context.Cause(ctx))
	<-t.done
	return t.value, t.err
}

// join counts the caller among those who wait for the value. It is nil if ctx ended
// while an attempt that was given up still ran.
func (m *memo[T]) join(ctx context.Context, makeIt func(ctx context.Context) (T, error)) *making[T] {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.making != nil && m.making.abandoned {
		ended := m.making.done
		m.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
		}
		m.mu.Lock()
		if ctx.Err() != nil {
			return nil
		}
	}
	if m.making == nil {
		t := &making[T]{done: make(chan struct{})}
		var life context.Context
		life, t.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		m.making = t
		go m.run(life, t, makeIt)
	}
	m.making.waiting++
	return m.making
}

func (m *memo[T]) run(ctx context.Context, t *making[T], makeIt func(ctx context.Context) (T, error)) {
	defer t.cancel(nil)
	value, err := makeIt(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	t.value, t.err = value, err
	if t.abandoned && err != nil {
		m.making = nil
	}
	t.abandoned = false
	close(t.done)
}

// leave takes a caller off those who wait, and reports whether it was the last of an
// attempt that still runs.
func (m *memo[T]) leave(t *making[T]) (last bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t.waiting--
	select {
	case <-t.done:
		return false
	default:
	}
	t.abandoned = t.waiting == 0
	return t.abandoned
}
