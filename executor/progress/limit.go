package progress

import (
	"fmt"
	"time"

	units "github.com/docker/go-units"
)

// limiter decides how much of a vertex's output is shown: a total, and a rate
// averaged since the vertex started. Only what is shown counts. Once output is
// left out, all is, for the rest of the second or, at the total, for good.
type limiter struct {
	total, rate int64 // bytes and bytes per second; negative is no limit

	used   int64
	full   bool  // the total is reached
	paused int64 // the second for which the rate is reached, 0 if there is no such second
}

func newLimiter(o Options) limiter {
	return limiter{total: o.LogLimit, rate: o.LogRate}
}

// take reports whether n more bytes, written when the vertex was of the given
// age, may be shown. When output begins to be left out, notice says so.
func (l *limiter) take(n int64, age time.Duration) (ok bool, notice string) {
	second := int64(max(0, age)/time.Second) + 1
	if l.full || l.paused == second {
		return false, ""
	}
	if l.total >= 0 && l.used+n > l.total {
		l.full = true
		return false, clipped(units.BytesSize(float64(l.total)))
	}
	if l.rate >= 0 && float64(l.used+n) > float64(second)*float64(l.rate) {
		l.paused = second
		return false, clipped(units.BytesSize(float64(l.rate)) + "/s")
	}
	l.used += n
	return true, ""
}

func clipped(limit string) string {
	return fmt.Sprintf("[output clipped, log limit %s reached]", limit)
}
