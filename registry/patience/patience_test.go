package patience_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/bobbuild/bob/registry/patience"
	"github.com/bobbuild/bob/registry/patience/patiencetest"
)

// TestOutage checks that an outage is survived if it is shorter than the limit, and
// that a longer one is given up no later than at the limit.
func TestOutage(t *testing.T) {
	t.Parallel()
	for _, limit := range []time.Duration{0, time.Second, 10 * time.Second, time.Hour} {
		said := limit
		if said == 0 {
			said = patience.DefaultLimit
		}
		for _, outage := range []time.Duration{0, time.Millisecond, said / 2, said, said + 1, 2 * said} {
			c := new(patiencetest.Clock)
			a := patience.Policy{Limit: limit, Clock: c}.Begin()
			last := time.Duration(0)
			for c.Passed() < outage {
				wait, left, ok := a.Next(0)
				if !ok {
					break
				}
				if wait > 10*time.Second || wait < last/4 && left > 0 || left < 0 {
					t.Errorf("limit %s, outage %s: waits %s after %s with %s left", limit, outage, wait, last, left)
				}
				last = wait
				if err := a.Sleep(t.Context(), wait); err != nil {
					t.Fatal(err)
				}
			}
			if survived := c.Passed() >= outage; survived != (outage <= said) || c.Passed() > said {
				t.Errorf("limit %s, outage %s: survived %t after %s", limit, outage, survived, c.Passed())
			}
		}
	}
}

func TestNext(t *testing.T) {
	t.Parallel()
	c := new(patiencetest.Clock)
	if _, _, ok := (patience.Policy{Limit: -1, Clock: c}).Begin().Next(0); ok {
		t.Error("tried again without patience")
	}
	a := patience.Policy{Limit: time.Minute, Clock: c}.Begin()
	if wait, _, ok := a.Next(20 * time.Second); !ok || wait != 20*time.Second {
		t.Errorf("waits %s, %t when asked for 20s", wait, ok)
	}
	_ = c.Sleep(t.Context(), 30*time.Second)
	if _, _, ok := a.Next(31 * time.Second); ok {
		t.Error("waits longer than it may")
	}
	_ = c.Sleep(t.Context(), time.Hour)
	a.Progressed()
	if _, _, ok := a.Next(0); !ok || a.Failed() != 1 {
		t.Errorf("after progress there were %d failures", a.Failed())
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	if err := (patience.Policy{}).Begin().Sleep(ctx, time.Hour); !errors.Is(err, why) {
		t.Errorf("the sleep ended with %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "1.5": 0, "soon": 0, "99999999999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat):  time.Minute,
		now.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := patience.RetryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}

func TestPassing(t *testing.T) {
	t.Parallel()
	op := func(err error) error {
		return &url.Error{Op: "Get", URL: "http://x", Err: &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}}
	}
	for _, err := range []error{
		op(syscall.ECONNREFUSED), op(syscall.ECONNRESET), op(syscall.EHOSTUNREACH), op(syscall.ENETUNREACH), op(syscall.EPIPE), op(os.ErrDeadlineExceeded),
		io.EOF, fmt.Errorf("body: %w", io.ErrUnexpectedEOF), net.ErrClosed, &net.DNSError{IsTemporary: true}, &net.DNSError{IsTimeout: true},
		&net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.ENOENT)}, errors.New("http: server closed idle connection"),
	} {
		if !patience.Passing(err) {
			t.Errorf("%v isn't taken to be passing", err)
		}
	}
	for _, err := range []error{
		op(syscall.EACCES), &url.Error{Op: "Get", Err: x509.UnknownAuthorityError{}}, &net.DNSError{IsNotFound: true, IsTemporary: true},
		context.Canceled, context.DeadlineExceeded, &url.Error{Err: context.Canceled}, errors.New("unsupported protocol scheme"), http.ErrSchemeMismatch, os.ErrNotExist,
	} {
		if patience.Passing(err) {
			t.Errorf("%v is taken to be passing", err)
		}
	}
}
