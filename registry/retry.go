package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxDelay = 15 * time.Second
	// maxRetryAfter is the longest wait that a registry may ask for; when
	// it asks for more, waiting isn't the answer.
	maxRetryAfter = 2 * time.Minute
	// maxStalls bounds retries of requests that ended in silence: each has
	// already cost an idle timeout.
	maxStalls = 1
)

// stallError ends a request in which nothing moves any more.
type stallError struct{ after time.Duration }

func (e *stallError) Error() string {
	return fmt.Sprintf("the registry stalled: no byte moved for %s", e.after)
}

// retrier counts the attempts of one operation.
type retrier struct {
	client *Client
	what   string // for notices: "pull sha256:… of host/repo"
	n      int
	stalls int
}

// run calls attempt until it succeeds, fails for good, or was tried often
// enough.
func (c *Client) run(ctx context.Context, what string, attempt func() error) error {
	r := &retrier{client: c, what: what}
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		if err := r.wait(ctx, err); err != nil {
			return err
		}
	}
}

// progressed starts the count anew.
func (r *retrier) progressed() { r.n, r.stalls = 0, 0 }

// wait returns nil when the operation is to be tried again now, else err with
// the count of attempts noted.
func (r *retrier) wait(ctx context.Context, err error) error {
	r.n++
	var (
		e       *Error
		stalled *stallError
	)
	known := errors.As(err, &e)
	if known {
		e.Attempts = r.n
	}
	if ctx.Err() != nil || !transient(err) || r.n > r.client.retries {
		return err
	}
	if errors.As(err, &stalled) {
		if r.stalls++; r.stalls > maxStalls {
			return err
		}
	}
	delay := jitter(min(r.client.backoff<<min(r.n-1, 16), maxDelay))
	if known && e.RetryAfter > 0 {
		if e.RetryAfter > maxRetryAfter {
			return err
		}
		delay = max(delay, e.RetryAfter)
	}
	r.client.notice(fmt.Sprintf("%s: retry %d of %d in %s: %s",
		r.what, r.n, r.client.retries, delay.Round(time.Millisecond), reason(err)))
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		if known {
			stopped := *e
			stopped.Status, stopped.Codes, stopped.Message, stopped.Err = 0, nil, "", ctx.Err()
			return &stopped
		}
		return ctx.Err()
	}
}

// reason is the cause alone, without subject and advice.
func reason(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		what, _ := e.explain()
		return what
	}
	return err.Error()
}

// jitter spreads d over 75 to 125 %, so that clients that failed together
// don't come back together.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1) //nolint:gosec // nothing secret depends on it
}

// transient says whether the same request may succeed later.
func transient(err error) bool {
	if e, ok := errors.AsType[*Error](err); ok {
		if e.permanent {
			return false
		}
		if e.Status != 0 {
			// Every blob was pushed before its manifest, but some registries take a
			// moment to see it: object stores, and docker-registry while another
			// client pushes the same blob.
			return transientStatus(e.Status) || e.has("MANIFEST_BLOB_UNKNOWN")
		}
		if e.Err == nil {
			return false
		}
		err = e.Err
	}
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrCorrupt):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound && (dns.IsTemporary || dns.IsTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return true
	case timedOut(err):
		return true
	}
	// net/http exports no error for a kept connection that the server
	// closed as the request went out.
	return strings.Contains(err.Error(), "server closed idle connection")
}

// timedOut says whether err is silence, of the network or of the registry.
func timedOut(err error) bool {
	if _, ok := errors.AsType[*stallError](err); ok {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func transientStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// retryAfter reads a Retry-After header (RFC 9110 section 10.2.3); 0 when
// there is none, or none that can be read.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now).Round(time.Second))
	}
	return 0
}
