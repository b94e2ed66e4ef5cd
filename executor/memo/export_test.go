package memo

import "runtime"

// AwaitWaiters returns when n callers wait for v.
func AwaitWaiters[T any](v *Value[T], n int) {
	for waiting := 0; waiting < n; runtime.Gosched() {
		v.mu.Lock()
		waiting = v.making.waiting
		v.mu.Unlock()
	}
}
