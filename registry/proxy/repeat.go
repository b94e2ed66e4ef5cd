package proxy

import (
	"context"
	"log/slog"

	"github.com/bobbuild/bob/registry/patience"
)

// A repeater makes requests to a host again that could not reach it.
type repeater struct {
	host     string
	log      *slog.Logger
	attempts *patience.Attempts
}

// run calls attempt until it succeeds or says that it isn't to be made again, or until
// patience is at its end.
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
