package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// chunkSize is what goes to the network at once.
	chunkSize = 1 << 20
	// chunks in flight: one is filled while another is sent.
	chunkCount = 2

	abortTimeout = 2 * time.Second
)

// Upload is a blob on its way whose digest isn't known yet. It is for one
// goroutine. It can't be retried: after an error the caller pushes the blob by
// [Push.Blob], from bytes it has kept. If it has told the digest by a Commit that
// failed, Blob goes on where the upload broke, when the registry can.
//
// A blob of less than 1 MiB is sent whole, in one request, by Commit.
type Upload struct {
	push   *Push
	pipe   *chunkPipe
	send   func() // begins the request that carries the bytes
	whole  func(d digest.Digest, body []byte) error
	commit func(d digest.Digest, location *url.URL) error
	abort  func(location *url.URL)
	cancel context.CancelFunc

	sending  bool
	answered chan struct{} // closed when location and err are set
	location *url.URL      // where it goes on after all bytes
	err      error         // why it can't

	finished bool // no more bytes
	closed   bool
}

// Stream begins an upload; the bytes are then written to it. Cancelling ctx
// ends it. The caller must Commit or Close it, best both: Close after Commit
// does nothing.
func (p *Push) Stream(ctx context.Context) (*Upload, error) {
	start := p.takeSpare()
	if start == nil {
		var err error
		if start, err = p.session.begin(ctx, opPushBlob, ""); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	u := &Upload{
		push:     p,
		pipe:     newChunkPipe(),
		location: start,
		answered: make(chan struct{}),
		cancel:   cancel,
		commit:   func(d digest.Digest, location *url.URL) error { return p.finish(ctx, d, location) },
		abort:    func(location *url.URL) { p.abandon(ctx, location) },
	}
	u.send = func() { go u.carry(ctx, start) }
	u.whole = func(d digest.Digest, body []byte) error {
		up := &blobUpload{
			session: p.session, want: ocispec.Descriptor{Digest: d, Size: int64(len(body))}, location: start, fresh: true,
			open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
		}
		return up.run(ctx)
	}
	return u, nil
}

// carry makes the one request that carries the bytes.
func (u *Upload) carry(ctx context.Context, to *url.URL) {
	defer close(u.answered)
	c := &call{
		op:     opPushBlob,
		accept: partStored(),
		single: true,
		Call: wire.Call{
			Method: http.MethodPatch,
			URL:    to,
			Header: http.Header{"Content-Type": {"application/octet-stream"}},
			Body:   func() (io.ReadCloser, error) { return u.pipe, nil },
			Size:   -1,
			Commit: true,
		},
	}
	u.err = u.push.session.perform(ctx, c, func(resp *http.Response) (err error) {
		if !u.pipe.drained() {
			return u.push.session.fail(c.op, "", errEarly)
		}
		if resp.Header.Get("Location") != "" { // else it goes on where it was
			u.location, err = u.push.session.location(c, resp)
		}
		return err
	})
	_ = u.pipe.Close() // wakes a waiting Write
}

var (
	errEarly  = errors.New("the registry answered before it had all bytes")
	errClosed = errors.New("upload is closed")
)

// Write sends p, or keeps it until there is enough to send. It blocks while
// the registry is slower than the caller.
func (u *Upload) Write(p []byte) (int, error) {
	if u.closed || u.finished {
		return 0, errClosed
	}
	if !u.sending && u.pipe.fills(len(p)) {
		u.begin()
	}
	n, ok := u.pipe.write(p)
	if ok {
		return n, nil
	}
	return n, u.failure()
}

// begin begins to send what is written.
func (u *Upload) begin() {
	u.sending = true
	u.send()
}

// failure waits for the reason why the request ended early.
func (u *Upload) failure() error {
	<-u.answered
	if u.err == nil {
		return errEarly
	}
	return u.err
}

// Commit sends what is left, waits until the registry has all of it, and ends
// the upload as the blob d. The registry checks that the bytes are d's. After a
// Write that failed it fails as well, but the upload stays for [Push.Blob].
func (u *Upload) Commit(d digest.Digest) error {
	if u.closed || u.finished {
		return errClosed
	}
	u.finished = true
	err := u.complete(d)
	u.closed = true
	u.cancel()
	known, repo := u.push.session.client.blobs, u.push.session.ref.Context()
	if err != nil {
		known.leave(repo, d, u.location)
		return err
	}
	known.note(repo, d)
	return nil
}

// complete sends what is left as the end of the blob d.
func (u *Upload) complete(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return u.push.session.fail(opPushBlob, "", err)
	}
	if !u.sending {
		return u.whole(d, u.pipe.filled)
	}
	u.pipe.finish()
	<-u.answered
	if u.err != nil {
		return u.err
	}
	return u.commit(d, u.location)
}

// Close gives the upload up unless it was committed, and tells the registry.
// It always returns nil; it may be called any number of times.
func (u *Upload) Close() error {
	if u.closed {
		return nil
	}
	u.closed = true
	u.cancel()
	_ = u.pipe.Close() // always nil
	if u.sending {
		<-u.answered
	}
	location := u.location
	if location != nil {
		u.abort(location)
	}
	return nil
}

// finish ends an upload all bytes of which are there.
func (p *Push) finish(ctx context.Context, d digest.Digest, location *url.URL) error {
	tried := false
	return p.session.client.run(ctx, opPushBlob+" "+p.session.subject(d.String()), func() error {
		err := p.session.perform(ctx, &call{
			op:     opPushBlob,
			digest: d.String(),
			accept: partStored(),
			Call: wire.Call{
				Method: http.MethodPut,
				URL:    withDigest(location, d),
				Commit: true,
			},
		}, func(resp *http.Response) error { return p.session.checkDigest(opPushBlob, d, resp) })
		if tried && errors.Is(err, oci.ErrNotFound) {
			// The answer to an earlier try may have been lost, not the try.
			if there, existsErr := p.session.existsOnce(ctx, d); existsErr == nil && there {
				return nil
			}
		}
		tried = true
		return err
	})
}

// abandon asks the registry to forget an upload. It would do so by itself some
// day: nothing depends on the answer.
func (p *Push) abandon(ctx context.Context, location *url.URL) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_ = p.session.perform(ctx, &call{
		op:     opPushBlob,
		accept: []int{http.StatusNoContent},
		single: true, // not worth a new token,
		Call: wire.Call{
			Method: http.MethodDelete,
			URL:    location,
		},
	}, func(*http.Response) error { return nil })
}

// chunkPipe joins a writer with the reader that is a request's body, by a few
// large buffers that go round, so that both sides work at the same time.
type chunkPipe struct {
	free   chan []byte   // to be filled
	full   chan []byte   // to be sent; closed after the last
	gone   chan struct{} // closed when nobody reads any more
	filled []byte        // the writer's
	once   sync.Once

	rest []byte      // the reader's, of the chunk begun
	held []byte      // that chunk
	end  atomic.Bool // the reader has seen the last
}

func newChunkPipe() *chunkPipe {
	p := &chunkPipe{
		free: make(chan []byte, chunkCount),
		full: make(chan []byte, chunkCount),
		gone: make(chan struct{}),
	}
	for range chunkCount {
		p.free <- nil // made when needed
	}
	return p
}

// fills reports whether n more bytes fill the chunk that the writer has.
func (p *chunkPipe) fills(n int) bool { return len(p.filled)+n >= chunkSize }

// write takes all of b unless the reader is gone.
func (p *chunkPipe) write(b []byte) (n int, ok bool) {
	for len(b) > 0 {
		if p.filled == nil {
			select {
			case <-p.gone:
				return n, false
			case p.filled = <-p.free:
			}
			if p.filled == nil {
				p.filled = []byte{} // it grows: most blobs are small
			}
			p.filled = p.filled[:0]
		}
		take := min(len(b), chunkSize-len(p.filled))
		p.filled = append(p.filled, b[:take]...)
		b, n = b[take:], n+take
		if len(p.filled) == chunkSize {
			p.flush()
		}
	}
	select {
	case <-p.gone:
		return n, false
	default:
		return n, true
	}
}

// flush hands the chunk over; there is always room for it.
func (p *chunkPipe) flush() {
	if len(p.filled) > 0 {
		p.full <- p.filled
	}
	p.filled = nil
}

// finish is the writer's last act.
func (p *chunkPipe) finish() {
	p.flush()
	close(p.full)
}

// next returns the bytes of the chunk begun, or of the next one.
func (p *chunkPipe) next() ([]byte, error) {
	if len(p.rest) > 0 {
		return p.rest, nil
	}
	if p.held != nil {
		p.free <- p.held
		p.held = nil
	}
	select {
	case <-p.gone:
		return nil, io.ErrClosedPipe
	case chunk, ok := <-p.full:
		if !ok {
			p.end.Store(true)
			return nil, io.EOF
		}
		p.held, p.rest = chunk, chunk
		return chunk, nil
	}
}

// Read implements io.Reader.
func (p *chunkPipe) Read(b []byte) (int, error) {
	chunk, err := p.next()
	if err != nil {
		return 0, err
	}
	n := copy(b, chunk)
	p.rest = p.rest[n:]
	return n, nil
}

// WriteTo implements io.WriterTo: each write is a whole chunk.
func (p *chunkPipe) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		chunk, err := p.next()
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(chunk)
		total += int64(n)
		if err != nil {
			return total, err
		}
		p.rest = nil
	}
}

// drained says whether the reader has had everything.
func (p *chunkPipe) drained() bool {
	return p.end.Load()
}

// Close is the reader's last act.
func (p *chunkPipe) Close() error {
	p.once.Do(func() { close(p.gone) })
	return nil
}
