// Package patiencetest has a clock for tests of what waits, as package patience says.
package patiencetest

import (
	"context"
	"sync/atomic"
	"time"
)

// A Clock is a [patience.Clock] on which waiting takes no time. The zero value is
// ready. It may be used concurrently.
type Clock struct{ passed atomic.Int64 }

// Now implements patience.Clock. Nothing but Sleep moves it on.
func (c *Clock) Now() time.Time { return time.Unix(1000, c.passed.Load()) }

// Sleep implements patience.Clock.
func (c *Clock) Sleep(ctx context.Context, d time.Duration) error {
	c.passed.Add(int64(d))
	return context.Cause(ctx)
}

// Passed returns how long was slept.
func (c *Clock) Passed() time.Duration { return time.Duration(c.passed.Load()) }
