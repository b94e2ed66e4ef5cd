package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"

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

// mayRepeat says whether the request may be made again after err, as far as its body
// allows. Of a request that changes an upload nothing may have been sent, since its
// place in the upload would be another then.
func (c *call) mayRepeat(err error) bool {
	if err == nil || !patience.Passing(err) {
		return false
	}
	switch {
	case c.method == http.MethodGet, c.method == http.MethodHead, c.method == http.MethodPost:
		return true
	case c.method == http.MethodPut && c.body != nil && !c.once: // a manifest
		return true
	}
	if _, unknown := errors.AsType[*net.DNSError](err); unknown {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "dial"
}
