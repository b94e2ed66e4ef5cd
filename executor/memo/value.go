package memo

import (
	"context"
	"sync"
)

// A Value is made when it is asked for first, and any number of callers wait for it, each
// as long as its own context lasts. The zero Value holds nothing yet. A Value may be used
// by several goroutines and must not be copied.
type Value[T any] struct {
	mu     sync.Mutex
	making *making[T] // nil: nobody has asked
}

// A making is one attempt to make a value.
type making[T any] struct {
	done   chan struct{} // closed when value and err are valid
	value  T
	err    error
	cancel context.CancelCauseFunc

	// Guarded by the mutex of the Value.
	waiting   int
	abandoned bool
}

// Get returns the value, which makeIt makes in a goroutine of its own if nobody has
// asked before. An error is a result like a value: it isn't tried again. The context of
// makeIt has the values of ctx, but not its deadline or cancellation: it ends when the
// last caller gives up, and that caller waits for makeIt to return. A later caller then
// makes the value anew. A value that exists is returned even if ctx has ended.
func (v *Value[T]) Get(ctx context.Context, makeIt func(ctx context.Context) (T, error)) (T, error) {
	m := v.join(ctx, makeIt)
	if m == nil {
		var zero T
		return zero, context.Cause(ctx)
	}
	select {
	case <-m.done:
		return m.value, m.err
	case <-ctx.Done():
	}
	over, last := v.leave(m)
	if !over && !last {
		var zero T
		return zero, context.Cause(ctx)
	}
	if last {
		m.cancel(context.Cause(ctx))
	}
	<-m.done
	return m.value, m.err
}

// join counts the caller among those who wait for the value. It returns nil if ctx ended
// before an attempt was begun.
func (v *Value[T]) join(ctx context.Context, makeIt func(ctx context.Context) (T, error)) *making[T] {
	v.mu.Lock()
	defer v.mu.Unlock()
	for v.making != nil && v.making.abandoned {
		ended := v.making.done
		v.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
		}
		v.mu.Lock()
		if ctx.Err() != nil {
			return nil
		}
	}
	if v.making == nil {
		if ctx.Err() != nil {
			return nil
		}
		m := &making[T]{done: make(chan struct{})}
		var life context.Context
		life, m.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
		v.making = m
		go v.run(life, m, makeIt)
	}
	v.making.waiting++
	return v.making
}

func (v *Value[T]) run(ctx context.Context, m *making[T], makeIt func(ctx context.Context) (T, error)) {
	defer m.cancel(nil)
	value, err := makeIt(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	m.value, m.err = value, err
	if m.abandoned && err != nil {
		v.making = nil
	}
	m.abandoned = false
	close(m.done)
}

// leave removes the caller from those who wait. It reports whether m is over, and
// otherwise whether the caller was the last.
func (v *Value[T]) leave(m *making[T]) (over, last bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	m.waiting--
	select {
	case <-m.done:
		return true, false
	default:
	}
	m.abandoned = m.waiting == 0
	return false, m.abandoned
}
