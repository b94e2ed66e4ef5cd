package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"sync"

	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/patience"
)

const (
	// commitPatience is how many idle times a registry may take to answer after the
	// last byte of a blob. Registries on object stores copy the blob then.
	commitPatience = 5
	// maxDrain is how much of an unwanted body is read so that its connection
	// can be used again.
	maxDrain = 64 << 10
)

// A Call is one HTTP request that can be made any number of times.
type Call struct {
	Method string
	URL    *url.URL
	Header http.Header

	Body   func() (io.ReadCloser, error) // nil: the request has no body
	Size   int64                         // of the body, bytes; -1: unknown, sent in chunks
	Commit bool                          // the registry has work to do after the last byte
}

// Exchange makes a request once. The body of the response ends with a
// [patience.StallError] when the registry stalls, and must be closed.
func (h *Host) Exchange(ctx context.Context, c *Call, authorization string) (*http.Response, error) {
	ctx, dog := patience.Watch(ctx, h.network.options.Idle)
	dog.Name(c.Method, c.URL.Host)
	req, sent, err := c.request(ctx, dog)
	if err != nil {
		dog.End()
		return nil, err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	dog.Wake()
	carrier := http.Client{Transport: h}
	carrier.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		dog.Name(req.Method, req.URL.Host)
		dog.Moved()
		return h.checkRedirect(req, via)
	}
	resp, err := carrier.Do(req)
	if err != nil {
		defer dog.End()
		return nil, exchangeError(ctx, sent, err)
	}
	dog.Sleep()
	resp.Body = &guardedBody{inner: resp.Body, dog: dog, cause: func() error { return patience.Stalled(ctx) }}
	return resp, nil
}

// exchangeError finds out why a request ended without an answer.
func exchangeError(ctx context.Context, sent *sendBody, err error) error {
	if stall := patience.Stalled(ctx); stall != nil {
		return stall
	}
	if sent != nil {
		if own := sent.failure(); own != nil {
			return own
		}
	}
	return words.Bare(err)
}

// request builds the request. sent is its body, which may be nil.
func (c *Call) request(ctx context.Context, dog *patience.Watchdog) (req *http.Request, sent *sendBody, err error) {
	req, err = http.NewRequestWithContext(ctx, c.Method, c.URL.String(), http.NoBody)
	if err != nil {
		return nil, nil, words.Bare(err)
	}
	maps.Copy(req.Header, c.Header)
	times := 1
	if c.Commit {
		times = commitPatience
	}
	if c.Body == nil {
		dog.Allow(times)
		return req, nil, nil
	}
	content, err := c.Body()
	if err != nil {
		return nil, nil, &SourceError{err}
	}
	sent = &sendBody{inner: content, dog: dog, size: c.Size, times: times}
	req.ContentLength = c.Size
	req.Body = sent
	req.GetBody = nil // the caller makes new attempts
	if chunks, ok := content.(io.WriterTo); ok && c.Size < 0 {
		req.Body = &sendChunks{sendBody: sent, chunks: chunks}
	}
	return req, sent, nil
}

// A SourceError is a failure to read the body to send. Trying again won't help.
type SourceError struct{ err error }

// Error tells the cause.
func (e *SourceError) Error() string { return "read what is to be sent: " + e.err.Error() }

// Unwrap returns the cause.
func (e *SourceError) Unwrap() error { return e.err }

// sendBody is a request body. The watchdog sleeps while the body is read, since then
// this process isn't ready.
type sendBody struct {
	inner io.ReadCloser
	dog   *patience.Watchdog
	size  int64 // -1: unknown
	times int   // the idle time, for the answer

	mu   sync.Mutex // net/http may still read after it has returned
	read int64
	err  error
}

// Read implements io.Reader.
func (b *sendBody) Read(p []byte) (int, error) {
	b.dog.Sleep()
	n, err := b.inner.Read(p)
	b.mu.Lock()
	b.read += int64(n)
	read := b.read
	b.mu.Unlock()
	switch {
	case b.size >= 0 && (read > b.size || (errors.Is(err, io.EOF) && read < b.size)):
		err = b.fail(fmt.Errorf("%w: it has not the %d bytes of its descriptor", oci.ErrCorrupt, b.size))
	case errors.Is(err, io.EOF):
		b.dog.Allow(b.times)
	case err != nil:
		err = b.fail(err)
	}
	b.dog.Wake()
	return n, err
}

// Close implements io.Closer.
func (b *sendBody) Close() error { return b.inner.Close() }

func (b *sendBody) fail(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = &SourceError{err}
	return b.err
}

func (b *sendBody) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

// sendChunks is a body of unknown size that hands out its chunks as they are:
// net/http writes each to the network at once, so they had better be large.
type sendChunks struct {
	*sendBody
	chunks io.WriterTo
}

// WriteTo implements io.WriterTo.
func (b *sendChunks) WriteTo(w io.Writer) (int64, error) {
	b.dog.Sleep()
	n, err := b.chunks.WriteTo(writerFunc(func(p []byte) (int, error) {
		b.dog.Wake()
		n, err := w.Write(p)
		b.dog.Sleep()
		return n, err
	}))
	b.dog.Allow(b.times)
	b.dog.Wake()
	return n, err
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// guardedBody is a response body. The watchdog is awake only while the body is read,
// since at other times this process isn't ready.
type guardedBody struct {
	inner io.ReadCloser
	dog   *patience.Watchdog
	cause func() error
}

// Read implements io.Reader.
func (b *guardedBody) Read(p []byte) (int, error) {
	b.dog.Wake()
	n, err := b.inner.Read(p)
	b.dog.Sleep()
	if err != nil && !errors.Is(err, io.EOF) {
		if stall := b.cause(); stall != nil {
			err = stall
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *guardedBody) Close() error {
	b.dog.End()
	return b.inner.Close()
}

// Drain reads the rest of body, if it is short, and closes body.
func Drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, maxDrain) // only to keep the connection
	_ = body.Close()                            // nothing was written to it
}
