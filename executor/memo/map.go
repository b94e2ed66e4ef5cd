package memo

import (
	"context"
	"sync"
)

// A Map is a [Value] for each key. The zero Map is ready for use. A Map may be used by
// several goroutines and must not be copied.
type Map[K comparable, V any] struct {
	mu     sync.Mutex
	values map[K]*Value[V]
}

// Get returns the value of key as [Value.Get] does.
func (m *Map[K, V]) Get(ctx context.Context, key K, makeIt func(ctx context.Context) (V, error)) (V, error) {
	m.mu.Lock()
	v := m.values[key]
	if v == nil {
		if m.values == nil {
			m.values = make(map[K]*Value[V])
		}
		v = new(Value[V])
		m.values[key] = v
	}
	m.mu.Unlock()
	return v.Get(ctx, makeIt)
}
