package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/patience"
)

// maxSpoiled is how often content that arrives damaged is asked for, or sent, again. It
// takes as long as whole layers do.
const maxSpoiled = 2

// retries says how operations are tried again, and whom that is told.
type retries struct {
	patience patience.Policy
	notice   func(string)
}

// retrier counts the attempts of one operation.
type retrier struct {
	notice   func(string)
	what     string // for notices: "pull sha256:… of host/repo"
	attempts *patience.Attempts
	spoiled  int // of them, because of damage
}

func (r *retries) retrier(what string) *retrier {
	return &retrier{notice: r.notice, what: what, attempts: r.patience.Begin()}
}

// run calls attempt until it succeeds, fails for good, or patience is at its end.
func (r *retries) run(ctx context.Context, what string, attempt func() error) error {
	one := r.retrier(what)
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		if err := one.wait(ctx, err); err != nil {
			return err
		}
	}
}

// progressed notes that bytes arrived.
func (r *retrier) progressed() { r.attempts.Progressed() }

// wait returns nil when the operation is to be tried again now, else err with
// the count of attempts noted.
func (r *retrier) wait(ctx context.Context, err error) error {
	var (
		e     *Error
		asked time.Duration
	)
	known := errors.As(err, &e)
	if known && !e.permanent {
		e.Attempts = r.attempts.Failed() + 1
		asked = e.RetryAfter
	}
	if ctx.Err() != nil || !transient(err) {
		return err
	}
	if _, damage := errors.AsType[*oci.SpoiledError](err); damage {
		if r.spoiled++; r.spoiled > maxSpoiled {
			return err
		}
	}
	// A registry that is silent for longer than one is patient isn't asked again.
	if stall, ok := errors.AsType[*patience.StallError](err); ok && stall.After > r.attempts.Limit() {
		return err
	}
	wait, left, ok := r.attempts.Next(asked)
	if !ok {
		return err
	}
	r.notice(fmt.Sprintf("%s: %s; trying again in %s, for another %s at most",
		r.what, reason(err), wait.Round(time.Millisecond), (wait + left).Round(time.Second)))
	if r.attempts.Sleep(ctx, wait) == nil {
		return nil
	}
	if known {
		stopped := *e
		stopped.Status, stopped.Codes, stopped.Message, stopped.Err = 0, nil, "", ctx.Err()
		return &stopped
	}
	return ctx.Err()
}

// reason is the cause alone, without subject and advice.
func reason(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		what, _ := e.explain()
		return what
	}
	return err.Error()
}

// transient says whether the same request may succeed later.
func transient(err error) bool {
	e, ours := errors.AsType[*Error](err)
	if ours && e.permanent {
		return false
	}
	if _, damage := errors.AsType[*oci.SpoiledError](err); damage {
		return true
	}
	if ours {
		if e.Status != 0 {
			// Every blob was pushed before its manifest, but some registries take a
			// moment to see it: object stores, and docker-registry while another
			// client pushes the same blob.
			return patience.PassingStatus(e.Status) || e.has("MANIFEST_BLOB_UNKNOWN")
		}
		if e.Err == nil {
			return false
		}
		err = e.Err
	}
	return !errors.Is(err, oci.ErrCorrupt) && patience.Passing(err)
}
