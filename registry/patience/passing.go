package patience

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Passing reports whether an error of a request, or of its answer's body, is one that
// the same request may not meet a little later: the server or the network before it
// isn't there, is silent, or hung up. It is false for nil.
func Passing(err error) bool {
	var dns *net.DNSError
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound && (dns.IsTemporary || dns.IsTimeout)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed), away(err), timedOut(err):
		return true
	}
	// net/http exports no errors for a kept connection that the server closed as the
	// request went out, and for what HTTP/2 servers say when they end.
	text := err.Error()
	return strings.Contains(text, "server closed idle connection") || strings.Contains(text, "http2: server sent GOAWAY") ||
		strings.Contains(text, "http2: client connection lost")
}

// away reports whether err says that a server, or the network before it, isn't there.
// It may be about to start again.
func away(err error) bool {
	for _, number := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
		syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.ENETRESET,
	} {
		if errors.Is(err, number) {
			return true
		}
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Net == "unix" && errors.Is(err, fs.ErrNotExist)
}

func timedOut(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// PassingStatus reports whether a request that was answered with an HTTP status may be
// answered otherwise a little later.
func PassingStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// RetryAfter reads a Retry-After header (RFC 9110 section 10.2.3); 0 if the header is
// missing or can't be read.
func RetryAfter(h http.Header, now time.Time) time.Duration {
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
