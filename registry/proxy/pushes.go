package proxy

import (
	"context"
	"sync"
	"time"
)

// pushes knows which pushes are running: a push is many requests, with pauses
// between them while the next layer is made.
type pushes struct {
	mu       sync.Mutex
	running  map[string]bool // by alias
	requests int             // now
	last     time.Time       // the end of a request
	draining bool
	changed  chan struct{} // closed at each change
}

func newPushes() *pushes {
	return &pushes{running: make(map[string]bool), changed: make(chan struct{})}
}

func (p *pushes) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.last = time.Now()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pushes) enter() { p.change(func() { p.requests++ }) }
func (p *pushes) leave() { p.change(func() { p.requests-- }) }

// mayBegin reports whether a push to alias may begin or go on. While the proxy drains,
// no push begins.
func (p *pushes) mayBegin(alias string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running[alias] || !p.draining
}

// begin notes that a push to alias is running.
func (p *pushes) begin(alias string) { p.change(func() { p.running[alias] = true }) }

// end notes that a push to alias has sent its manifest.
func (p *pushes) end(alias string) { p.change(func() { delete(p.running, alias) }) }

// drain waits as [Proxy.Drain] does.
func (p *pushes) drain(ctx context.Context, patience time.Duration) error {
	p.change(func() { p.draining = true })
	for {
		p.mu.Lock()
		running, changed := len(p.running), p.changed
		wait := patience
		if p.requests == 0 {
			wait -= time.Since(p.last)
		}
		p.mu.Unlock()
		if running == 0 || wait <= 0 {
			return nil
		}
		select {
		case <-changed:
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
