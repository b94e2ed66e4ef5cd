package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/bobbuild/bob/registry/internal/wire"
	"github.com/bobbuild/bob/registry/oci"
	"github.com/bobbuild/bob/registry/patience"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// resumable is the size in bytes from which a blob is sent by PATCH and closed by
// PUT (distribution-spec v1.1, "Pushing a blob in chunks"), so that the registry
// keeps what has arrived when the connection breaks. Smaller ones go in one PUT.
const resumable = 8 << 20

// blobUpload brings one blob to a repository, over as many requests as it takes.
type blobUpload struct {
	session *session
	want    ocispec.Descriptor
	open    func() (io.ReadCloser, error)

	location *url.URL // where the upload goes on; nil if it has to be begun
	fresh    bool     // nothing was sent to location yet
	offset   int64    // bytes that the registry has
	furthest int64    // the largest offset so far
}

// run tries until the blob is there. As with downloads, progress starts the count
// of retries anew.
func (u *blobUpload) run(ctx context.Context) error {
	s := u.session
	r := s.client.retrier(opPushBlob + " " + s.subject(u.want.Digest.String()))
	for first := true; ; first = false {
		err := u.prepare(ctx, first)
		if u.offset > u.furthest {
			u.furthest = u.offset
			r.progressed()
		}
		if err == nil && u.location != nil {
			err = u.attempt(ctx)
		}
		if err == nil {
			return nil
		}
		if err := r.wait(ctx, err); err != nil {
			return err
		}
	}
}

// prepare finds out where to go on, or begins an upload. Without an error and
// without a location the blob is there already: the answer to an earlier attempt
// was lost.
func (u *blobUpload) prepare(ctx context.Context, first bool) error {
	if u.location != nil && !u.fresh {
		if err := u.status(ctx); err != nil {
			return err
		}
	}
	if u.location != nil {
		return nil
	}
	if !first {
		if there, err := u.session.existsOnce(ctx, u.want.Digest); there || err != nil {
			return err
		}
	}
	u.offset = 0
	var err error
	u.location, err = u.session.beginOnce(ctx, opPushBlob, u.want.Digest.String())
	return err
}

// status asks how much of the upload the registry has. An upload of which it can't
// tell is given up.
func (u *blobUpload) status(ctx context.Context) error {
	c := u.call(http.MethodGet, u.location)
	c.accept = uploadKnown()
	err := u.session.perform(ctx, c, func(resp *http.Response) error {
		offset, ok := uploadOffset(resp.Header.Get("Range"))
		if !ok || offset > u.want.Size {
			u.location = nil
			return nil
		}
		u.offset = offset
		return u.move(c, resp)
	})
	if e, ok := errors.AsType[*Error](err); ok && e.Status != 0 && !patience.PassingStatus(e.Status) {
		u.location = nil
		return nil
	}
	return err
}

// uploadOffset reads the Range of an upload, "0-N" with N the last byte that is
// there. Registries say "0-0" of an empty upload too, so it says nothing.
func uploadOffset(header string) (offset int64, ok bool) {
	last, ok := strings.CutPrefix(strings.TrimPrefix(header, "bytes="), "0-")
	n, err := strconv.ParseInt(last, 10, 63)
	if !ok || err != nil || n <= 0 {
		return 0, false
	}
	return n + 1, true
}

// move notes where the upload goes on after a response.
func (u *blobUpload) move(c *call, resp *http.Response) (err error) {
	if resp.Header.Get("Location") != "" { // else it stays where it was
		u.location, err = u.session.location(c, resp)
	}
	return err
}

// attempt sends what the registry lacks.
func (u *blobUpload) attempt(ctx context.Context) error {
	resumed := u.offset > 0
	u.fresh = false
	var err error
	if u.want.Size >= resumable || resumed {
		err = u.sendParts(ctx)
	} else {
		err = u.finish(ctx, u.open, u.want.Size)
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	// The registry may have dropped bytes that turned out wrong.
	_, damaged := errors.AsType[*oci.SpoiledError](err)
	if e.has("DIGEST_INVALID") || damaged || e.again {
		u.location = nil
		e.damaged()
		return err
	}
	if e.Status == 0 || patience.PassingStatus(e.Status) {
		return err
	}
	// What a registry doesn't know any more, or can't go on with, is begun anew.
	if resumed || e.has("BLOB_UPLOAD_UNKNOWN") {
		u.location = nil
		e.Status, e.Err = 0, errUploadLost
	}
	return err
}

var errUploadLost = fmt.Errorf("the registry doesn't go on with the upload: %w", io.ErrUnexpectedEOF)

// sendParts sends the bytes from offset on, and ends the upload.
func (u *blobUpload) sendParts(ctx context.Context) error {
	if rest := u.want.Size - u.offset; rest > 0 {
		c := u.call(http.MethodPatch, u.location)
		c.accept = partStored()
		c.Body, c.Size = u.rest, rest
		c.Commit = true
		if u.offset > 0 {
			c.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.want.Size-1))
		}
		err := u.session.perform(ctx, c, func(resp *http.Response) error { return u.move(c, resp) })
		if err != nil {
			return err
		}
		u.offset = u.want.Size
	}
	return u.finish(ctx, nil, 0)
}

// rest opens the bytes from offset on.
func (u *blobUpload) rest() (io.ReadCloser, error) {
	content, err := u.open()
	if err != nil || u.offset == 0 {
		return content, err
	}
	if s, ok := content.(io.Seeker); ok {
		_, err = s.Seek(u.offset, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, content, u.offset)
	}
	if err != nil {
		return nil, errors.Join(err, content.Close())
	}
	return content, nil
}

// finish ends the upload, with what body opens as its last bytes.
func (u *blobUpload) finish(ctx context.Context, body func() (io.ReadCloser, error), size int64) error {
	c := u.call(http.MethodPut, withDigest(u.location, u.want.Digest))
	c.accept = partStored()
	c.Body, c.Size = body, size
	c.Commit = true
	s := u.session
	return s.perform(ctx, c, func(resp *http.Response) error { return s.checkDigest(opPushBlob, u.want.Digest, resp) })
}

func (u *blobUpload) call(method string, to *url.URL) *call {
	return &call{
		op:     opPushBlob,
		digest: u.want.Digest.String(),
		Call: wire.Call{
			Method: method,
			URL:    to,
			Header: http.Header{"Content-Type": {"application/octet-stream"}},
		},
	}
}
