package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/bobbuild/bob/executor/memo"
	"github.com/bobbuild/bob/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"
)

// uploadsAtOnce bounds the blobs on their way to the registries.
const uploadsAtOnce = 4

// A Document holds the bytes of a config, a manifest or an index.
type Document struct {
	ocispec.Descriptor

	Body []byte
}

// NewDocument returns body as a document.
func NewDocument(mediaType string, body []byte) Document {
	return Document{ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}, body}
}

// A Target is a reference that an image or a cache is pushed to. Each blob is sent to it
// once. It may be used by several goroutines.
type Target struct {
	ref    string
	push   *registry.Push
	lender string // a reference that has blobs of this build, "" if there is no such reference
	slots  *semaphore.Weighted
	sent   memo.Map[digest.Digest, struct{}]
	// learned is closed when it is known which blobs the registry should have.
	learned chan struct{}
}

// learn finds out which blobs the registry should have.
func (t *Target) learn(ctx context.Context) error {
	defer close(t.learned)
	_ = t.push.Learn(ctx) // each blob is asked for then
	return nil
}

// forget reports whether err, of putting a manifest, may come from what was learned. Then
// all blobs have to be sent again, and the manifest. Nothing is sent meanwhile.
func (t *Target) forget(err error) bool {
	if err == nil || !t.push.Forget(err) {
		return false
	}
	t.sent = memo.Map[digest.Digest, struct{}]{}
	return true
}

// send returns when the registry has the blob d. If from isn't "", the registry may
// mount the blob from this reference.
func (t *Target) send(ctx context.Context, d ocispec.Descriptor, from string, open func(context.Context) (io.ReadCloser, error)) error {
	_, err := t.sent.Get(ctx, d.Digest, func(ctx context.Context) (struct{}, error) {
		if err := t.slots.Acquire(ctx, 1); err != nil {
			return struct{}{}, context.Cause(ctx)
		}
		defer t.slots.Release(1)
		<-t.learned
		return struct{}{}, t.push.Blob(ctx, d, cmp.Or(from, t.lender), func() (io.ReadCloser, error) { return open(ctx) })
	})
	return err
}

// sendDocument is send of a config.
func (t *Target) sendDocument(ctx context.Context, d Document) error {
	<-t.learned
	return t.push.Blob(ctx, d.Descriptor, "", func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(d.Body)), nil })
}

// put stores d as the manifest that the reference names or, without tag, only by its
// digest.
func (t *Target) put(ctx context.Context, d Document, tag bool) error {
	put := t.push.Child
	if tag {
		put = t.push.Manifest
	}
	got, err := put(ctx, d.MediaType, d.Body)
	if err != nil {
		return err
	}
	if got != d.Digest {
		return fmt.Errorf("push %s: the registry stored the manifest as %s, sent was %s", t.ref, got, d.Digest)
	}
	return nil
}

// A stream is an upload that runs while its layer is being compressed. Its Write never
// fails: if the upload breaks, it drops the rest, which is sent when the layer is
// complete.
type stream struct {
	ctx    context.Context //nolint:containedctx // of one upload, which the value stands for
	target *Target
	up     *registry.Upload
	err    error // nothing is uploaded
}

// stream begins an upload. The caller closes it.
func (t *Target) stream(ctx context.Context) *stream {
	up, err := t.push.Stream(ctx)
	return &stream{ctx: ctx, target: t, up: up, err: err}
}

// noStream is a stream that uploads nothing.
func noStream() *stream { return &stream{err: errors.New("nothing is uploaded")} }

func (s *stream) Write(p []byte) (int, error) {
	if s.err == nil {
		_, _ = s.up.Write(p) // commit returns the error
	}
	return len(p), nil
}

// commit ends the upload with the digest of its bytes. A broken upload is resumed. If
// this fails, the rest is sent from the store.
func (s *stream) commit(d digest.Digest) {
	if s.err != nil || s.up.Commit(d) != nil {
		return
	}
	_, _ = s.target.sent.Get(s.ctx, d, func(context.Context) (struct{}, error) { return struct{}{}, nil })
}

// close abandons an upload that wasn't committed.
func (s *stream) close() {
	if s.err == nil {
		_ = s.up.Close()
	}
}
