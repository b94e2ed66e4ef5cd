package fetch

import (
	"context"
	"net/http/httptrace"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/patience"
)

const (
	// listPatience is how many idle times a list of references may take in all.
	listPatience = 5
	// gitGrace is how long what go-git does may take to heed the end of its context:
	// connecting by SSH never does.
	gitGrace = 5 * time.Second
)

// askGit has f ask remote, as [Client.retried] does. What doesn't end with its context
// is left behind, and isn't tried again.
func askGit[T any](ctx context.Context, c *Client, remote string, f func(context.Context, *patience.Watchdog) (T, error)) (answer T, err error) {
	type result struct {
		answer T
		err    error
	}
	err = c.retried(ctx, "git repository "+Redact(remote), func(ctx context.Context, dog *patience.Watchdog) error {
		done := make(chan result, 1)
		go func() {
			got, err := f(ctx, dog)
			done <- result{got, err}
		}()
		var r result
		select {
		case r = <-done:
		case <-ctx.Done():
			select {
			case r = <-done:
			case <-time.After(gitGrace):
				return &leftError{context.Cause(ctx)}
			}
		}
		answer = r.answer
		return r.err
	})
	return answer, err
}

// listed returns the context for a request that begins with a list of references. How
// much of it has come shows in no way: dog lets it have some time in all, by HTTP from
// its first byte on.
func listed(ctx context.Context, address string, dog *patience.Watchdog) context.Context {
	if !strings.HasPrefix(address, "http") {
		dog.Allow(listPatience)
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { dog.Allow(listPatience) }})
}

// heard is told what a server says of its work.
type heard struct{ dog *patience.Watchdog }

// Write implements io.Writer.
func (h heard) Write(b []byte) (int, error) {
	h.dog.Moved()
	return len(b), nil
}
