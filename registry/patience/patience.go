// Package patience says how long, and after which waits, something is tried again that
// fails for a passing reason. All of bob's requests have the same patience, so that bob
// survives every outage that is shorter than the limit. A [Watchdog] ends an attempt in
// which no byte moves any more.
//
// A library for this (cenkalti/backoff, hashicorp/go-retryablehttp) calls a function
// until it succeeds. Here bytes are handed out between the attempts, and their
// arrival starts the time anew.
package patience

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	// DefaultLimit is the limit of the zero Policy.
	DefaultLimit = time.Minute

	defaultFirst = 500 * time.Millisecond
	maxWait      = 8 * time.Second
)

// A Policy says how long, and after which waits, to retry. The zero value is the
// default.
type Policy struct {
	// Limit is how long after the first failure, or after the first since something
	// arrived, an attempt may begin. 0 is DefaultLimit; less than 0 is no second
	// attempt at all.
	Limit time.Duration
	// First is the wait before the second attempt; 0 is 500 ms. Each further wait
	// is twice as long, up to 8 s, give or take a quarter. The last one ends at the
	// limit.
	First time.Duration
	// Clock is the clock to use; nil is the machine's.
	Clock Clock
}

// A Clock tells the time and waits. It may be used concurrently.
type Clock interface {
	Now() time.Time
	// Sleep returns after d, or when ctx ends with the cause of that.
	Sleep(ctx context.Context, d time.Duration) error
}

// Now is the time by the policy's clock.
func (p Policy) Now() time.Time {
	if p.Clock == nil {
		return time.Now()
	}
	return p.Clock.Now()
}

// Attempts counts the attempts at one thing. It is for one goroutine.
type Attempts struct {
	policy Policy
	failed int       // attempts, since something arrived
	since  time.Time // the first of these
}

// Begin returns attempts that begin with the first.
func (p Policy) Begin() *Attempts {
	if p.Limit == 0 {
		p.Limit = DefaultLimit
	}
	if p.First <= 0 {
		p.First = defaultFirst
	}
	if p.Clock == nil {
		p.Clock = machine{}
	}
	return &Attempts{policy: p}
}

// Progressed notes that something arrived: the count and the time start anew.
func (a *Attempts) Progressed() { a.failed = 0 }

// Failed returns how many attempts have failed since something arrived.
func (a *Attempts) Failed() int { return a.failed }

// Limit returns how long to retry at most.
func (a *Attempts) Limit() time.Duration { return max(0, a.policy.Limit) }

// Next notes that an attempt has failed. It returns how long to wait before the next
// attempt, at least atLeast, and how long attempts may go on after that. ok is false if
// there is to be no other attempt.
func (a *Attempts) Next(atLeast time.Duration) (wait, left time.Duration, ok bool) {
	now := a.policy.Clock.Now()
	if a.failed == 0 {
		a.since = now
	}
	a.failed++
	left = a.policy.Limit - now.Sub(a.since)
	if left <= 0 || atLeast > left {
		return 0, 0, false
	}
	wait = min(a.policy.First<<min(a.failed-1, 16), maxWait)
	// Spread the attempts of callers that failed together.
	wait = wait*3/4 + rand.N(wait/2+1) //nolint:gosec // nothing secret depends on it
	wait = min(max(wait, atLeast), left)
	return wait, left - wait, true
}

// Sleep waits as the policy's clock does.
func (a *Attempts) Sleep(ctx context.Context, d time.Duration) error {
	return a.policy.Clock.Sleep(ctx, d)
}

// machine is the machine's clock.
type machine struct{}

// Now implements Clock.
func (machine) Now() time.Time { return time.Now() }

// Sleep implements Clock.
func (machine) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
