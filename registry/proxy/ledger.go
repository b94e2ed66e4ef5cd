package proxy

import (
	"maps"
	"sync"
)

// A ledger remembers the newest of what is put into it: when it is full it
// forgets the older half. Its methods may be called concurrently.
type ledger[V any] struct {
	room int

	mu      sync.Mutex
	count   int
	entries map[string]entry[V]
}

type entry[V any] struct {
	value V
	count int
}

func newLedger[V any](room int) *ledger[V] {
	return &ledger[V]{room: room, entries: make(map[string]entry[V])}
}

func (l *ledger[V]) put(key string, value V) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.set(key, value)
}

func (l *ledger[V]) set(key string, value V) {
	if len(l.entries) >= l.room {
		maps.DeleteFunc(l.entries, func(_ string, e entry[V]) bool { return e.count <= l.count-l.room/2 })
	}
	l.count++
	l.entries[key] = entry[V]{value, l.count}
}

func (l *ledger[V]) get(key string) (V, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[key]
	return e.value, ok
}

// getOr returns what is there under key, or puts what create returns.
func (l *ledger[V]) getOr(key string, create func() V) V {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.entries[key]; ok {
		return e.value
	}
	value := create()
	l.set(key, value)
	return value
}

func (l *ledger[V]) remove(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.entries, key)
}
