package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/bobbuild/bob/registry/internal/reference"
	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/internal/words"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sites are the other sites from which something may be read.
type sites interface {
	// after returns the session to use after failed failed with err, or the error to
	// end with.
	after(ctx context.Context, failed *session, err error) (*session, error)
}

// onlyHere is sites without another site.
type onlyHere struct{}

func (onlyHere) after(_ context.Context, _ *session, err error) (*session, error) { return nil, err }

// blob opens a blob. If the session fails, the blob is read from the sites elsewhere.
func (s *session) blob(ctx context.Context, op string, d ocispec.Descriptor, elsewhere sites) (io.ReadCloser, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, s.fail(op, "", fmt.Errorf("%w: digest %q: %w", oci.ErrCorrupt, words.Line(d.Digest.String()), err))
	}
	if err := s.pauseSpoiled(ctx, op, d); err != nil {
		return nil, err
	}
	r := &blobReader{
		ctx:       ctx,
		session:   s,
		elsewhere: elsewhere,
		op:        op,
		want:      d,
		verifier:  d.Digest.Verifier(),
		retrier:   s.blobRetrier(op, d),
	}
	for {
		err := r.connect()
		if err == nil {
			return r, nil
		}
		if err := r.again(err); err != nil {
			return nil, err
		}
	}
}

func (s *session) blobRetrier(op string, d ocispec.Descriptor) *retrier {
	return s.client.retrier(op + " " + d.Digest.String() + " of " + reference.Repository(s.ref.Context()))
}

// pauseSpoiled waits before a damaged blob is read again, and notifies the user.
func (s *session) pauseSpoiled(ctx context.Context, op string, d ocispec.Descriptor) error {
	n := s.client.blobs.spoiled(s.ref.Context(), d.Digest)
	if n == 0 {
		return nil
	}
	r := s.blobRetrier(op, d)
	var wait time.Duration
	for range n {
		wait, _, _ = r.attempts.Next(0)
	}
	s.client.notice(fmt.Sprintf("%s: it came damaged; trying again in %s", r.what, wait.Round(time.Millisecond)))
	if r.attempts.Sleep(ctx, wait) != nil {
		return s.fail(op, d.Digest.String(), ctx.Err())
	}
	return nil
}

// blobReader reads one blob over as many responses as it takes.
type blobReader struct {
	ctx       context.Context //nolint:containedctx // of one blob, which the value stands for
	session   *session
	elsewhere sites
	op        string
	want      ocispec.Descriptor
	verifier  digest.Verifier
	retrier   *retrier

	body   io.ReadCloser // nil: not connected
	offset int64
	err    error // returned by every later Read
}

// Read implements io.Reader.
func (r *blobReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, r.err
	}
	for r.err == nil {
		n, err := r.readOnce(p)
		if n > 0 {
			return n, nil
		}
		r.err = err
	}
	return 0, r.err
}

// readOnce returns some bytes, or the error to end with. It returns neither after a
// failure from which the reader can recover.
func (r *blobReader) readOnce(p []byte) (int, error) {
	if r.body == nil {
		if err := r.connect(); err != nil {
			return 0, r.again(err)
		}
	}
	n, err := r.body.Read(p)
	if int64(n) > r.want.Size-r.offset {
		return 0, r.spoil("more than %d bytes", r.want.Size)
	}
	if n > 0 {
		r.offset += int64(n)
		_, _ = r.verifier.Write(p[:n]) // a hash never fails
		if r.offset == r.want.Size && !r.verifier.Verified() {
			// Withhold the last bytes, so that nobody takes the blob for complete.
			return 0, r.spoil("its bytes have another digest")
		}
		r.retrier.progressed()
		return n, nil // the next read returns the error again
	}
	switch {
	case err == nil:
		return 0, nil
	case r.offset == r.want.Size: // after the last byte no failure matters
		if !r.verifier.Verified() { // the blob is empty
			return 0, r.spoil("its bytes have another digest")
		}
		r.session.client.blobs.arrived(r.session.ref.Context(), r.want.Digest)
		return 0, io.EOF
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	r.disconnect()
	return 0, r.again(r.session.fail(r.op, r.want.Digest.String(),
		fmt.Errorf("after %d of %d bytes: %w", r.offset, r.want.Size, err)))
}

func (r *blobReader) corrupt(format string, args ...any) error {
	return r.session.fail(r.op, r.want.Digest.String(), oci.Spoiled(format, args...))
}

// spoil is corrupt for a blob of which the caller already has bytes. The caller has to
// read the blob again, from the next site if there is one.
func (r *blobReader) spoil(format string, args ...any) error {
	r.disconnect()
	err := r.session.fail(r.op, r.want.Digest.String(), oci.Spoiled(format, args...))
	if other, gone := r.elsewhere.after(r.ctx, r.session, err); gone == nil && other != r.session {
		err.again = true
		return err
	}
	n := r.session.client.blobs.spoil(r.session.ref.Context(), r.want.Digest)
	err.Attempts = n
	err.again = n <= maxSpoiled && r.session.client.patience.Limit >= 0
	return err
}

func (r *blobReader) disconnect() {
	if r.body != nil {
		_ = r.body.Close() // nothing was written to it
		r.body = nil
	}
}

// Close implements io.Closer.
func (r *blobReader) Close() error {
	r.disconnect()
	if r.err == nil {
		r.err = errors.New("read after close")
	}
	return nil
}

// again returns nil if the blob is to be requested again after err, possibly from
// another site.
func (r *blobReader) again(err error) error {
	if err = r.retrier.wait(r.ctx, err); err == nil {
		return nil
	}
	other, err := r.elsewhere.after(r.ctx, r.session, err)
	if err != nil {
		return err
	}
	r.session, r.retrier = other, other.blobRetrier(r.op, r.want)
	return nil
}

// connect asks for the blob from offset on.
func (r *blobReader) connect() error {
	c := &call{
		op:     r.op,
		digest: r.want.Digest.String(),
		accept: []int{http.StatusOK},
		Call: wire.Call{
			Method: http.MethodGet,
			URL:    r.session.url("blobs/" + r.want.Digest.String()),
			// The bytes themselves, not a compression of them.
			Header: http.Header{"Accept-Encoding": {"identity"}},
		},
	}
	if r.offset > 0 {
		c.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.offset, max(r.want.Size-1, 0)))
		c.accept = []int{http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable}
	}
	resp, err := r.session.do(r.ctx, c)
	if err == nil && resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		// The server can't begin in the middle, so skip the bytes that are read
		// already.
		wire.Drain(resp.Body)
		c.Header.Del("Range")
		c.accept = []int{http.StatusOK}
		resp, err = r.session.do(r.ctx, c)
	}
	if err != nil {
		return err
	}
	if err := r.position(resp); err != nil {
		_ = resp.Body.Close() // nothing was written to it
		return err
	}
	r.body = resp.Body
	return nil
}

// position skips the bytes of a response before offset.
func (r *blobReader) position(resp *http.Response) error {
	if resp.StatusCode == http.StatusPartialContent {
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", r.offset)) {
			return r.corrupt("asked for the bytes from %d on it sent %q", r.offset, words.Line(resp.Header.Get("Content-Range")))
		}
		return nil
	}
	if resp.ContentLength >= 0 && resp.ContentLength != r.want.Size {
		return r.corrupt("%d bytes instead of %d", resp.ContentLength, r.want.Size)
	}
	// A server may ignore Range.
	if _, err := io.CopyN(io.Discard, resp.Body, r.offset); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return r.session.fail(r.op, r.want.Digest.String(), err)
	}
	return nil
}
