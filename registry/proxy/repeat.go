package proxy

import (
	"context"
	"log/slog"

	"github.com/bobbuild/bob/registry/patience"
)

// A repeater repeats requests that could not reach a host.
type repeater struct {
	host     string
	log      *slog.Logger
	attempts *patience.Attempts
}

// run calls attempt until it succeeds, or says that it must not be repeated, or the
// patience ends.
func (r *repeater) run(ctx context.Context, attempt func() (again bool, err error)) error {
	for {
		again, err := attempt()
		if err == nil || !again || ctx.Err() != nil {
			return err
		}
		wait, _, ok := r.attempts.Next(0)
		if !ok {
			return err
		}
		r.log.WarnContext(ctx, "a registry can't be reached: trying again", "host", r.host, "in", wait)
		if err := r.attempts.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}
